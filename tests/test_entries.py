"""The sheet of what each entry decodes to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import toolkit
from toolkit.cli import entries

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
        assert sheet.width > sheet.height


def test_a_decoder_of_one_size_has_no_sheet(toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = toolkit.load(toy_run)

    def refuse(*_: object) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(model.autoencoder.decoder, "forward", refuse)
    assert entries.plot_entries(model, tmp_path) == []
