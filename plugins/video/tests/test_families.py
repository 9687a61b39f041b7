"""VidTok's family, against diffusers with random weights; for its first version, with changed layers of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
import yaml
from made_clips import numbered, save
from torch import Tensor

from toolkit import DataSpec
from toolkit.cli.adopting import compose_open
from toolkit.dataset import Dataset
from toolkit.errors import ToolkitError
from toolkit.family import Family
from toolkit.likelihoods.normal import NormalLikelihood
from toolkit.testing import FamilySuite
from toolkit.testing.context import in_float64
from toolkit.testing.family import Publication
from toolkit_video.families.vidtok import VidTokFamily
from toolkit_video.folder import FolderDataset
from toolkit_video.vidtok_decoder import VidTokDecoder
from toolkit_video.vidtok_encoder import VidTokEncoder

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
}
PUBLISHED: Mapping[str, Any] = {"z_channels": 6, "codebook_size": 8**6}


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
    """Either side is up to 1.2e-5 off what float64 gives; see below."""

    sizes = "four"
    films = (20, 17, 32)
    tolerance = 2e-5

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
            save(folder / split / "a.mp4", numbered(24, 256, 256))
        return FolderDataset(root=str(folder), frames=17, size=256, rate=8.0, labels="none")


class TestVidTokOfEight(TestVidTok):
    """Eight frames to a code, levels that widen and others that do not, and one that shrinks after the last."""

    sizes = "eight"
    films = (4, 17, 32)


class TestVidTokOfVersionOne(TestVidTok):
    """Zeros before the first frame of every layer, and frames that are repeated, by diffusers' layers so changed."""

    films = (4, 17, 32)

    def publication(self) -> Publication:
        settings, tensors = super().publication()
        return Publication({**settings, "version": "1.0"}, tensors)

    def encoded(self, x: Tensor) -> Tensor:
        with version_one(vidtok(self.sizes)):
            return super().encoded(x)

    def decoded(self, codes: Tensor) -> Tensor:
        with version_one(vidtok(self.sizes)):
            return super().decoded(codes)


@contextmanager
def version_one(model: Any) -> Iterator[None]:
    """Diffusers' model with the arithmetic of VidTok 1.0."""
    module = pytest.importorskip("diffusers.models.autoencoders.autoencoder_vidtok")

    def along_time(self: Any, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv(F.pad(x, (self.time_pad, 0))))

    def along_all(self: Any, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv(F.pad(x, (1, 1, 1, 1, self.time_pad, 0) if self.time_pad else (0, 0))))

    def half(self: Any, x: Tensor) -> Tensor:
        share = self.mix_factor.sigmoid()
        average = F.avg_pool3d(F.pad(x, (0, 0, 0, 0, 1, 0)), (3, 1, 1), (2, 1, 1))
        return cast(Tensor, share * average + (1 - share) * self.conv(x))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.VidTokCausalConv1d, "forward", along_time)
        patch.setattr(module.VidTokCausalConv3d, "forward", along_all)
        patch.setattr(module.VidTokDownsample3D, "forward", half)
        for layer in model.modules():
            if isinstance(layer, module.VidTokUpsample3D):
                patch.setattr(layer, "enable_cached", False)
                patch.setattr(layer, "interpolation_mode", "nearest")
        yield


@pytest.mark.slow
@torch.no_grad()
def test_only_rounding_is_between_the_decoders() -> None:
    """In float64 they agree up to the interpolation, which theirs does in float32."""
    theirs, family = vidtok("four"), VidTokFamily()
    tensors, data = theirs.state_dict(), DataSpec(3, (5, 32, 32), levels=256)
    entries = family.entries(family.settings(dict(theirs.config), {}))
    own = {
        name.removeprefix("decoder."): tensor
        for entry in entries
        for name, tensor in zip(entry.ours, entry.form.here([tensors[n] for n in entry.theirs]), strict=True)
        if name.startswith("decoder.")
    }
    z = torch.randint(8, (2, 5, 2, 4, 4)) / 3.5 - 1
    with in_float64():
        ours = VidTokDecoder(data, 5, (), NormalLikelihood(data, scale=0.1), hidden=8)
        ours.load_state_dict(own)
        mean = ours.eval().double()(z.double(), {}).mean
        expected = deepcopy(theirs.decoder).double()(z.double())[:, :, 3:]
    torch.testing.assert_close(mean, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.slow
def test_the_published_sizes() -> None:
    """Every tensor has its place and its shape; nothing is allocated."""
    module, family = pytest.importorskip("diffusers.models.autoencoders.autoencoder_vidtok"), VidTokFamily()
    with torch.device("meta"):
        tensors = module.AutoencoderVidTok(**FSQ, **PUBLISHED).state_dict()
        data = DataSpec(3, (17, 256, 256), levels=256)
        parts = {
            "encoder": VidTokEncoder(data, 6),
            "decoder": VidTokDecoder(data, 6, (), NormalLikelihood(data, scale=0.1)),
        }
    ours = {f"{part}.{name}": t for part, network in parts.items() for name, t in network.state_dict().items()}
    entries = family.entries(family.settings({**FSQ, **PUBLISHED}, {}))
    own = {
        name: tuple(tensor.shape)
        for entry in entries
        if entry.theirs
        for name, tensor in zip(entry.ours, entry.form.here([tensors[there] for there in entry.theirs]), strict=True)
    }
    assert own == {name: tuple(t.shape) for name, t in ours.items() if name != "decoder.likelihood.log_scale"}
    assert {there for entry in entries for there in entry.theirs} == {n for n in tensors if not family.skipped(n)}


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
        ({"version": "2.0"}, "version=2.0"),
    ],
)
def test_settings_that_no_part_does(change: Mapping[str, Any], told: str) -> None:
    with pytest.raises(ToolkitError, match=told):
        VidTokFamily().settings({**SETTINGS, **change}, {})


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("encoder=conv", "encoder=conv"),
        ("quantizer.levels=[8,5]", "quantizer"),
        ("likelihood=categorical", "likelihood"),
        ("decoder.blocks=4", "decoder.blocks=4"),
        ("decoder.frames=repeated", "decoder.frames=repeated"),
        ("encoder.padding=zeros", "encoder.padding=zeros"),
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


@pytest.mark.parametrize(
    "key", sorted({*SETTINGS, "in_channels", "out_channels", "ch_mult", "num_res_blocks", "tempo_ds"})
)
def test_settings_that_a_stranger_wrote_are_refused_by_name(key: str) -> None:
    for wrong in ("a", [["b"]], -1, {"c": 1}, 1 << 70):
        with pytest.raises(ToolkitError, match=key):
            VidTokFamily().settings({**SETTINGS, key: wrong}, {})


TRAINING = """
model:
  params:
    encoder_config:
      target: vidtok.modules.model_3dcausal%s.EncoderCausal3DPadding
      params: {double_z: false, z_channels: 5, in_channels: 3, out_ch: 3, ch: 128, ch_mult: [1, 2, 4, 4],
        time_downsample_factor: 4, num_res_blocks: 2, init_pad_mode: replicate, norm_type: layernorm%s}
    regularizer_config:
      target: vidtok.modules.regularizers.FSQRegularizer
      params: {levels: [8, 8, 8, 8, 8]}
"""
"""What counts of a file that the authors' weights come with."""


def test_the_authors_training_says_which_version_it_is() -> None:
    """Nothing in the tensors does; what was taken is said."""
    family, sizes = VidTokFamily(), {**FSQ, "z_channels": 5, "codebook_size": 8**5}
    first, second = (
        yaml.safe_load(TRAINING % ways) for ways in (("", ""), ("_v1_1", ", interpolation_mode: trilinear"))
    )
    old, new, unknown = (family.settings(written, {}) for written in (first, second, sizes))
    assert old == {**new, "version": "1.0"}
    assert new == unknown
    assert {"encoder.padding=zeros", "decoder.padding=zeros", "decoder.frames=repeated"} <= {*family.words(old)}
    assert {"encoder.padding=still", "decoder.padding=still", "decoder.frames=interpolated"} <= {*family.words(new)}
    said = [family.remarks(*pair) for pair in ((first, old), (second, new), ({}, unknown))]
    assert [len(lines) for lines in said] == [1, 1, 1]
    assert "version 1.0" in said[0][0]
    assert "version 1.1" in said[1][0]
    assert "settings=FILE" in said[2][0]
    assert "settings=FILE" not in said[1][0]


@pytest.mark.parametrize(
    ("ways", "told"),
    [
        (("_v1_1", ", interpolation_mode: nearest"), "interpolation_mode"),
        (("", ", norm_type: groupnorm"), "norm_type=groupnorm"),
    ],
)
def test_trainings_that_no_part_does(ways: tuple[str, str], told: str) -> None:
    with pytest.raises(ToolkitError, match=told):
        VidTokFamily().settings(yaml.safe_load(TRAINING % ways), {})
