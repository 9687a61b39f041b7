"""A stranger's parts that implement what an interface leaves to choice: trained, stopped, continued and used."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from stranger.stranger_plugin import SumsPrior
from test_resume import resume, stop
from torch import Tensor
from toys import SIX_STEPS, TILES, TOY, VQ, fingerprint

import toolkit
from toolkit.cli.config.compose import compose
from toolkit.prior import Prior
from toolkit.spec import CodeSpec, Condition
from toolkit.stages import train
from toolkit.testing.prior import PriorSuite

STRANGER = Path(__file__).parent / "stranger"


@pytest.fixture(autouse=True, scope="module")
def _plugins() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_PLUGIN_PATH", os.pathsep.join((str(TOY), str(STRANGER))))
        yield


class TestSumsPrior(PriorSuite):
    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return SumsPrior(code_spec, conditions)


def test_a_prior_with_a_prefill_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*TILES, *VQ, *SIX_STEPS, "prior=stranger_sums", "conditions.prior=[kind]"]
    train(compose(words).config, tmp_path / "whole")
    stop(words, tmp_path / "run", "prior-stranger_sums", 2)
    resume(tmp_path / "run")
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")

    model = toolkit.load(tmp_path / "run")
    trunk = type(model.priors["stranger_sums"].network.trunk)
    prefixes, prefill = [], trunk.prefill

    def counted(self: Any, state: Any, grid: Sequence[int], embedded: Tensor) -> None:
        prefixes.append(tuple(embedded.shape))
        prefill(self, state, grid, embedded)

    monkeypatch.setattr(trunk, "prefill", counted)
    words_of = {"conditions": {"kind": torch.arange(2)}, "seed": 3}
    codes = model.sample(2, **words_of).codes
    assert not prefixes
    again = model.sample(2, **words_of, prefix=codes.flatten(2)[:, :, :7]).codes
    assert prefixes == [(2, 8, 7)]
    assert torch.equal(again, codes)
