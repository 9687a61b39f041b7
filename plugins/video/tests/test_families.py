"""VidTok's family, against diffusers with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from made_clips import numbered, save
from torch import Tensor

from toolkit.cli.adopting import compose_open
from toolkit.dataset import Dataset
from toolkit.errors import ToolkitError
from toolkit.family import Family
from toolkit.testing import FamilySuite
from toolkit.testing.family import Publication
from toolkit_video.families.vidtok import VidTokFamily
from toolkit_video.folder import FolderDataset

FSQ = {"double_z": False, "regularizer": "fsq"}
SIZES: Mapping[str, Mapping[str, Any]] = {
    "four": {"ch": 8, "z_channels": 5, "codebook_size": 8**5},
    "eight": {
        "ch": 8,
        "ch_mult": [1, 2, 2, 3, 3],
        "z_channels": 3,
        "codebook_size": 8**3,
        "num_res_blocks": 1,
        "spatial_ds": [0, 1, 2, 3],
        "tempo_ds": [0, 1, 2],
        "spatial_us": [1, 2, 3, 4],
        "tempo_us": [2, 3, 4],
    },
    "published": {"z_channels": 6, "codebook_size": 8**6},
}


@cache
def vidtok(sizes: str) -> Any:
    module = pytest.importorskip("diffusers.models.autoencoders.autoencoder_vidtok")
    torch.manual_seed(0)
    model = module.AutoencoderVidTok(**FSQ, **SIZES[sizes]).eval()
    with torch.no_grad():  # as it is drawn, all latents are so near to zero that they share a code
        model.encoder.conv_out.conv.weight.mul_(4)
    return model


def films(n: int, frames: int, size: int) -> Tensor:
    """Half of them noise, half large pixels that flicker."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randint(256, (n - n // 2, 3, frames, size, size), generator=generator)
    large = torch.randint(256, (n // 2, 3, frames, size // 8, size // 8), generator=generator)
    return torch.cat([noise, large.repeat_interleave(8, 3).repeat_interleave(8, 4)])


def scaled(x: Tensor) -> Tensor:
    return x / 127.5 - 1


@pytest.mark.slow
class TestVidTok(FamilySuite):
    sizes = "four"
    films = (20, 17, 32)

    def family(self) -> Family:
        return VidTokFamily()

    def publication(self) -> Publication:
        model = vidtok(self.sizes)
        return Publication(dict(model.config), model.state_dict())

    def data(self) -> Tensor:
        return films(*self.films)

    def encoded(self, x: Tensor) -> Tensor:
        _, codes = vidtok(self.sizes)(scaled(x), encoder_mode=True)
        return cast(Tensor, codes.unsqueeze(1).long())

    def decoded(self, codes: Tensor) -> Tensor:
        return cast(Tensor, vidtok(self.sizes).decode(codes[:, 0], decode_from_indices=True))

    def dataset(self, folder: Path) -> Dataset:
        for split in ("train", "val", "test"):
            save(folder / split / "a.mp4", numbered(20, 256, 256))
        return FolderDataset(root=str(folder), frames=17, size=256, rate=8.0, labels="none")


class TestVidTokOfEight(TestVidTok):
    """Eight frames to a code, levels that widen and others that do not, and one that shrinks after the last."""

    sizes = "eight"
    films = (4, 17, 32)


class TestPublishedVidTok(TestVidTok):
    sizes = "published"
    films = (2, 5, 32)
    tolerance = 1e-4


@pytest.mark.slow
def test_the_authors_files_have_no_settings() -> None:
    """They are read off the tensors, with what a training leaves beside them."""
    model, family = vidtok("eight"), VidTokFamily()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert family.settings({}, shapes) == family.settings(dict(model.config), {})
    assert all(map(family.skipped, ("loss.logvar", "loss.discriminator.main.0.weight", "regularization._levels")))


SETTINGS: Mapping[str, Any] = {**FSQ, **SIZES["four"]}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"regularizer": "kl", "double_z": True}, "regularizer=kl"),
        ({"is_causal": False}, "is_causal=False"),
        ({"codebook_size": 1024}, "codebook_size=1024"),
        ({"out_channels": 1}, "out_channels=1"),
        ({"tempo_us": [0, 1]}, "tempo_us"),
    ],
)
def test_settings_that_no_part_does(change: Mapping[str, Any], told: str) -> None:
    with pytest.raises(ToolkitError, match=told):
        VidTokFamily().settings({**SETTINGS, **change}, {})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("encoder=conv", "encoder=conv"),
        ("quantizer.levels=[8,5]", "quantizer"),
        ("likelihood=categorical", "likelihood"),
        ("decoder.blocks=4", "decoder.blocks=4"),
        ("decoder.strides=[[2,2,2],[2,2,2]]", "strides"),
    ],
)
def test_runs_that_are_not_of_the_family(change: str, told: str) -> None:
    family = VidTokFamily()
    settings = family.settings(SETTINGS, {})
    option = change.partition("=")[0]
    words = [word for word in family.words(settings) if not word.startswith((f"{option}=", f"{option}."))]
    config = compose_open([*words, change])
    with pytest.raises(ToolkitError, match=told):
        family.settings_of(config, family.data(settings))
