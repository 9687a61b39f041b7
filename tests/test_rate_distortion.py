"""The comparison of quantizers has all of them, at equal bits."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import pytest

from toolkit import registry
from toolkit.build import build_autoencoder, build_prior
from toolkit.cli.config.compose import compose
from toolkit.spec import DataSpec

sys.path.append(str(Path(__file__).parents[1]))

from benchmarks import rate_distortion

ROOT = Path(__file__).parents[1]
CODELESS = {"gaussian"}
"""Quantizers without codes, and so without a rate."""
BITS = 512


def words_of(name: str) -> list[str]:
    return rate_distortion.words_of(name, 0, Namespace(root="data", hidden=4, steps=1))


def test_every_quantizer_is_compared() -> None:
    words = {word for name in rate_distortion.OWN for word in words_of(name)}
    chosen = {word.partition("=")[2] for word in words if word.startswith("quantizer")}
    files = {file.stem for file in (ROOT / "conf" / "quantizer").glob("*.yaml")}
    assert chosen >= {*registry.names("quantizer"), *files} - CODELESS


@pytest.mark.long
@pytest.mark.parametrize("name", rate_distortion.OWN)
def test_all_have_as_many_bits(name: str) -> None:
    config, data = compose(words_of(name)).config, DataSpec(3, (32, 32), 256)
    model = build_autoencoder(config, data)
    least = 0.985 * BITS if name == "lattice e8" else 0.998 * BITS
    assert least < model.code_spec.rate <= BITS
    assert build_prior(config, model.code_spec, data).tractable
