"""A model that is built again is not proved again, and nothing that could break the proof is overlooked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from toys import PIXELCNN, TILES, VQ, plugged_in

from toolkit import proofs
from toolkit.autoencoder import Autoencoder, encoded_grid
from toolkit.build import build_autoencoder, build_dataset, build_objective, build_prior
from toolkit.cli.config.compose import compose
from toolkit.config import RunConfig
from toolkit.fit import MisfitError
from toolkit.quantizers.vq import VectorQuantizer


@pytest.fixture(autouse=True)
def nothing_proved(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(proofs, "_PROVED", {})
    with plugged_in():
        yield


@pytest.fixture(scope="module")
def config() -> RunConfig:
    with plugged_in():
        return compose([*TILES, *VQ, *PIXELCNN]).config


def build(config: RunConfig) -> Autoencoder:
    """All of a model."""
    data = build_dataset(config).spec
    model = build_autoencoder(config, data)
    build_objective(config, model)
    build_prior(config, model.code_spec, data)
    return model


def proved() -> int:
    return len(proofs._PROVED)


def test_a_model_is_proved_once(config: RunConfig) -> None:
    first = build(config)
    proofs_of_one = proved()
    second = build(config)
    assert proofs_of_one == proved() == 5  # the grid, the likelihood, the autoencoder, the objective, the prior
    assert (first.grid, first.code_spec) == (second.grid, second.code_spec)


def test_other_options_are_proved(config: RunConfig) -> None:
    build(config)
    before = proved()
    build(replace(config, quantizer=replace(config.quantizer, options={**config.quantizer.options, "init": "random"})))
    assert proved() > before


def test_other_data_is_proved(config: RunConfig) -> None:
    model = build(config)
    larger = replace(model.data, axes=tuple(2 * size for size in model.data.axes))
    assert encoded_grid(model.encoder, larger, model.quantizer) == tuple(2 * size for size in model.grid)


def test_a_class_that_changed_is_proved(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    build(config)
    whole = VectorQuantizer.embed
    monkeypatch.setattr(VectorQuantizer, "embed", lambda self, codes: whole(self, codes)[:, :-1])
    with pytest.raises(MisfitError, match=r"quantizer=vq has an embed that gives 3 channels, dim is 4"):
        build(config)


def test_a_part_that_changed_is_proved(config: RunConfig) -> None:
    model = build(config)
    model.quantizer.dim = 3
    with pytest.raises(MisfitError, match=r"quantizer=vq gives latents of shape"):
        Autoencoder(model.data, model.encoder, model.quantizer, model.decoder)


def test_a_weight_that_changed_is_proved(config: RunConfig) -> None:
    model = build(config)
    first = next(module for module in model.encoder.modules() if isinstance(module, torch.nn.Conv2d))
    first.weight = torch.nn.Parameter(torch.cat([first.weight, first.weight], 1))
    with pytest.raises(MisfitError, match="encoder=toy_conv on data"):
        Autoencoder(model.data, model.encoder, model.quantizer, model.decoder)


def test_data_that_cannot_be_compared_is_proved_every_time(config: RunConfig) -> None:
    data = replace(build_dataset(config).spec, axes=[8, 8])  # type: ignore[arg-type]
    with suppress(MisfitError):
        build_autoencoder(config, data)
    assert proved() == 0


def test_a_misfit_is_told_every_time(config: RunConfig) -> None:
    odd = replace(build_dataset(config).spec, axes=(9, 9))
    messages = set()
    for _ in range(2):
        with pytest.raises(MisfitError) as misfit:
            build_autoencoder(config, odd)
        messages.add(str(misfit.value))
    assert len(messages) == 1


def test_no_more_is_remembered_than_a_number(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "MOST", 3)
    build(config)
    assert proved() <= 3
