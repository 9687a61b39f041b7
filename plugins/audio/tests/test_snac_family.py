"""SNAC as a run and back, against its authors' network with random weights."""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from made_sounds import noise, save
from torch import Tensor

from toolkit import Dataset, ToolkitError
from toolkit.adopting.mapping import to_theirs
from toolkit.build import build_autoencoder, build_dataset
from toolkit.cli.adopting import compose_open
from toolkit.family import Family
from toolkit.testing.family import FamilySuite, Publication
from toolkit_audio.families.snac import SnacFamily

pytestmark = pytest.mark.long

TINY: dict[str, Any] = {
    "sampling_rate": 2000,
    "encoder_dim": 4,
    "encoder_rates": [2, 3],
    "decoder_dim": 24,
    "decoder_rates": [3, 2],
    "attn_window_size": None,
    "codebook_size": 16,
    "codebook_dim": 3,
    "vq_strides": [4, 2, 1],
    "noise": True,
    "depthwise": True,
}
ATTENDING: dict[str, Any] = {**TINY, "encoder_dim": 16, "decoder_dim": 64, "attn_window_size": 8, "noise": False}
AT_24_KHZ: dict[str, Any] = {
    **TINY,
    "sampling_rate": 24000,
    "encoder_dim": 48,
    "encoder_rates": [2, 4, 8, 8],
    "decoder_dim": 1024,
    "decoder_rates": [8, 8, 4, 2],
    "codebook_size": 4096,
    "codebook_dim": 8,
}
AT_44_KHZ: dict[str, Any] = {
    **AT_24_KHZ,
    "sampling_rate": 44100,
    "encoder_dim": 64,
    "encoder_rates": [3, 3, 7, 7],
    "decoder_dim": 1536,
    "decoder_rates": [7, 7, 3, 3],
    "attn_window_size": 32,
    "vq_strides": [8, 4, 2, 1],
}


def snac(settings: dict[str, Any]) -> Any:
    return _snac(json.dumps(settings))


@cache
@torch.no_grad()
def _snac(settings: str) -> Any:
    """SNAC, none of whose weights are as they begin, without the noise that it draws."""
    pytest.importorskip("snac")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript's
        from snac import SNAC
        from snac.layers import NoiseBlock

    torch.manual_seed(0)
    model = SNAC(**json.loads(settings)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("alpha"):
            parameter.uniform_(0.3, 3)
        elif parameter.dim() == 1:
            parameter.add_(0.05 * torch.randn_like(parameter))
        elif name.endswith("original0"):
            parameter.mul_(torch.rand_like(parameter) + 0.5)
    for module in model.modules():
        if isinstance(module, NoiseBlock):
            module.forward = _as_it_is
    return model


def _as_it_is(h: Tensor) -> Tensor:
    return h


class SnacLaws(FamilySuite):
    options: ClassVar[dict[str, Any]] = TINY

    def family(self) -> Family:
        return SnacFamily()

    def publication(self) -> Publication:
        return Publication(self.options, snac(self.options).state_dict())

    def data(self) -> Tensor:
        samples = self._held.data.axes[0]
        return torch.randn(20, 1, samples, generator=torch.Generator().manual_seed(1)) / 3

    def encoded(self, x: Tensor) -> Tensor:
        """Theirs are a list, from coarse to fine; here they lie one after the other."""
        one_by_one = [torch.cat(snac(self.options).encode(one), 1) for one in x.split(1)]
        return torch.cat(one_by_one).unsqueeze(1)

    def decoded(self, codes: Tensor) -> Tensor:
        fine = codes.shape[2] * self.options["vq_strides"][0] // self._of_a_stride()
        sizes = [fine // stride for stride in self.options["vq_strides"]]
        x: Tensor = snac(self.options).decode(list(codes.squeeze(1).split(sizes, 1)))
        return x

    def _of_a_stride(self) -> int:
        """Codes of all codebooks while the coarsest has one."""
        strides = self.options["vq_strides"]
        return sum(strides[0] // stride for stride in strides)

    def dataset(self, folder: Path) -> Dataset | None:
        save(folder / "anna" / "1.wav", noise(1.5))
        words = SnacFamily().words(self._held.settings)
        return build_dataset(compose_open([*words, f"dataset.root={folder}"]))


@pytest.mark.slow
class TestSnac(SnacLaws):
    """Three strides, and no attention, as at 24 kHz."""


@pytest.mark.slow
class TestAttendingSnac(SnacLaws):
    options: ClassVar[dict[str, Any]] = ATTENDING


@pytest.mark.slow
class TestWholeSnac(SnacLaws):
    """At 24 kHz, at its own size."""

    options: ClassVar[dict[str, Any]] = AT_24_KHZ


@pytest.mark.slow
class TestWholeAttendingSnac(SnacLaws):
    """At 44.1 kHz, at its own size."""

    options: ClassVar[dict[str, Any]] = AT_44_KHZ


def rows(prefix: str, *modules: str) -> list[str]:
    """Names of what stands in a row there."""
    norm, direction = ".parametrizations.weight.original0", ".parametrizations.weight.original1"
    parts = {
        "conv": (norm, direction, ".bias"),
        "snake": (".alpha",),
        "noise": (f".linear{norm}", f".linear{direction}"),
        "attention": (".norm.weight", ".norm.bias", ".to_qkv.weight", ".to_out.weight", ".rel_pos.inv_freq"),
    }
    return [f"{prefix}.{number}{part}" for number, name in enumerate(modules) for part in parts.get(name, ())]


@pytest.mark.parametrize("options", [{**ATTENDING, "noise": True}, TINY])
def test_the_authors_layout(options: dict[str, Any]) -> None:
    """Modules in a row, with attention and noise among them where there are any."""
    attention = ["attention"] if options["attn_window_size"] else []
    names = rows("encoder.block", "conv", "", "", *attention, "conv")
    names += rows("decoder.model", "conv", "conv", *attention, "", "", "snake", "conv")
    unit = ("snake", "conv", "snake", "conv")
    for network, at, beside in (
        ("encoder.block", 1, ("unit", "unit", "unit", "snake", "conv")),
        ("decoder.model", 2 + len(attention), ("snake", "conv", "noise", "unit", "unit", "unit")),
    ):
        for block in (at, at + 1):
            names += rows(f"{network}.{block}.block", *beside)
            for number, what in enumerate(beside):
                names += rows(f"{network}.{block}.block.{number}.block", *unit) if what == "unit" else []
    for number in range(3):
        stage = f"quantizer.quantizers.{number}"
        parts = [name.removeprefix("x.0") for name in rows("x", "conv")]
        names += [f"{stage}.{at}{part}" for at in ("in_proj", "out_proj") for part in parts]
        names += [f"{stage}.codebook.weight"]
    family = SnacFamily()
    settings = family.settings(options, {})
    assert settings == {**options, "latent_dim": 4 * options["encoder_dim"]}
    config, data = compose_open(family.words(settings)), family.data(settings)
    model = build_autoencoder(config, data)
    published = to_theirs(family.entries(settings), model.state_dict())
    assert sorted(published) == sorted(names)
    assert family.settings_of(config, data) == settings
    shapes = {name: tuple(tensor.shape) for name, tensor in published.items()}
    known = family.settings({"sampling_rate": 2000}, shapes)
    assert known == {**settings, "attn_window_size": (attention and 32) or None}  # how long windows are, no shape tells


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vq_strides": [4, 2]}, r"vq_strides=\[4, 2\]: expected divisors of the first"),
        ({"vq_strides": [1, 1]}, r"vq_strides=\[1, 1\]: expected"),
        ({"vq_strides": [4, 3, 1]}, r"vq_strides=\[4, 3, 1\]: expected"),
        ({"vq_strides": "421"}, "vq_strides=421: expected a list"),
        ({"depthwise": False}, "depthwise=False: residual units"),
        ({"latent_dim": 100}, "latent_dim=100: the latents are"),
        ({"decoder_rates": [3, 3, 7, 7]}, r"decoder_rates=\[3, 3, 7, 7\]: the decoder's strides"),
        ({"decoder_dim": 100}, "decoder_dim=100: it cannot be halved 4 times"),
        ({"encoder_dim": 6}, "attn_window_size=32: 96 and 1536 channels are not heads of 64"),
        ({"attn_window_size": 0}, "attn_window_size=0: expected a whole number"),
    ],
)
def test_settings_that_no_part_does(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolkitError, match=message):
        SnacFamily().settings(settings, {})


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["encoder=audio_dac"], "encoder=audio_dac: the family's is audio_snac"),
        (["decoder.strides=[2,3]"], r"decoder.strides=\[2,3\]: the family's is \[3,2\]"),
        (["quantizer.convolutions=2"], "quantizer.convolutions=2: the family's is 0"),
        (["quantizer.shared=true"], "quantizer.shared=true: the family's is false"),
        (["quantizer.inner.inner.normalize=true"], "normalize=true: the family's is false"),
    ],
)
def test_runs_that_are_not_of_the_family(words: list[str], message: str) -> None:
    family = SnacFamily()
    settings = family.settings(TINY, {})
    option = words[0].partition("=")[0]
    dropped = (f"{option}=", "encoder.") if option == "encoder" else f"{option}="
    own = [word for word in family.words(settings) if not word.startswith(dropped)]
    with pytest.raises(ToolkitError, match=message):
        family.settings_of(compose_open([*own, *words]), family.data(settings))


def test_what_nothing_says_is_said() -> None:
    family = SnacFamily()
    said = family.remarks({}, family.settings({}, {}))
    assert [any(key in line for line in said) for key in ("42336", "sampling_rate=44100", "vq_strides=")] == [True] * 3
    assert len(family.remarks(AT_24_KHZ, family.settings(AT_24_KHZ, {}))) == 1
