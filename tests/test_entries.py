"""What toolkit evaluate plots of a run: what each entry decodes to, and what each position costs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import toolkit
from toolkit.cli import entries
from toolkit.cli.positions import plot_costs
from toolkit.priors.autoregressive import AutoregressivePrior

pytestmark = pytest.mark.usefixtures("toys")


def test_every_entry_has_the_patch_that_it_decodes_to_among_its_like(toy_run: Path, tmp_path: Path) -> None:
    model = toolkit.load(toy_run)
    patches = entries._patches(model)
    assert patches is not None
    stride = model.data.axes[0] // model.code_spec.grid[0]
    assert patches.shape == (16, model.data.channels, stride, stride)
    alike = model.decode(torch.full((1, 1, 5, 5), 7))
    assert torch.equal(patches[7], alike[0, :, 2 * stride : 3 * stride, 2 * stride : 3 * stride])
    (path,) = entries.plot_entries(model, tmp_path / "new")
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"


def test_a_decoder_of_one_size_has_no_sheet(toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = toolkit.load(toy_run)

    def refuse(*_: object) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(model.autoencoder.decoder, "forward", refuse)
    assert entries.plot_entries(model, tmp_path) == []


def test_costs_by_position_add_up(toy_run: Path, tmp_path: Path) -> None:
    model = toolkit.load(toy_run)
    prior = model.prior()
    assert isinstance(prior, AutoregressivePrior)
    codes = torch.randint(16, (3, *model.code_spec.shape), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        nats = prior.nats_by_position(codes, {})
        assert nats.shape == codes.shape
        assert torch.allclose(nats.flatten(1).sum(1), -prior.log_prob(codes, {}), rtol=1e-5)
        changed = codes.clone()
        changed[:, :, -1, -1] = (changed[:, :, -1, -1] + 1) % 16
        later = prior.nats_by_position(changed, {})
    assert torch.equal(nats.flatten(1)[:, :-1], later.flatten(1)[:, :-1])
    (path,) = plot_costs(model, model.dataset, "val", tmp_path / "new")
    with Image.open(path) as plot:
        assert plot.width > 600
