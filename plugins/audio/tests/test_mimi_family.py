"""Mimi as a run and back, against the network of transformers with random weights."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from made_sounds import noise, save
from torch import Tensor

from toolkit import Dataset, ToolkitError
from toolkit.build import build_dataset
from toolkit.cli.adopting import compose_open
from toolkit.family import Family
from toolkit.testing.family import FamilySuite, Publication
from toolkit_audio.families.mimi import MimiFamily
from toolkit_audio.families.mimi_names import averages

TINY: dict[str, Any] = {
    "sampling_rate": 1200,
    "num_filters": 4,
    "hidden_size": 16,
    "upsampling_ratios": [3, 2],
    "num_residual_layers": 2,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "sliding_window": 5,
    "upsample_groups": 16,
    "codebook_size": 16,
    "codebook_dim": 8,
    "vector_quantization_hidden_dimension": 8,
    "num_quantizers": 5,
    "num_semantic_quantizers": 2,
}


def mimi(**settings: Any) -> Any:
    return _mimi(json.dumps(settings))


@cache
@torch.no_grad()
def _mimi(settings: str) -> Any:
    """Mimi, none of whose weights are as they begin, with codebooks as wide as what they quantize, and sound in [-1, 1]
    out of them."""
    pytest.importorskip("transformers")
    from transformers.models.mimi.configuration_mimi import MimiConfig
    from transformers.models.mimi.modeling_mimi import MimiModel

    torch.manual_seed(0)
    model = MimiModel(MimiConfig(**json.loads(settings))).eval()
    for name, parameter in model.named_parameters():
        if "layer_scale" in name:
            parameter.uniform_(-0.5, 0.5)
        elif parameter.dim() == 1:
            parameter.add_(0.05 * torch.randn_like(parameter))
    z = model.encoder(torch.randn(4, 1, 40 * model.config.frame_size)).latents
    for half in (
        model.quantizer.semantic_residual_vector_quantizer,
        model.quantizer.acoustic_residual_vector_quantizer,
    ):
        residual = z if half.input_proj is None else half.input_proj(z)
        for layer in half.layers:
            book = layer.codebook
            book.cluster_usage.uniform_(0.5, 20)
            book.embed_sum.copy_(torch.randn(book.embed_sum.shape) * residual.std() * book.cluster_usage[:, None])
            residual = residual - layer.decode(layer.encode(residual))
    last = model.decoder.decoder_seanet.layers[-1].conv
    loudest = model.decode(model.quantizer.encode(z).transpose(0, 1)).audio_values.abs().max()
    for parameter in last.parameters():
        parameter.div_(loudest)
    return model


class MimiLaws(FamilySuite):
    options: ClassVar[dict[str, Any]] = TINY
    latents = 13

    def family(self) -> Family:
        return MimiFamily()

    def model(self) -> Any:
        return mimi(**self.options)

    def publication(self) -> Publication:
        return Publication(self.model().config.to_dict(), self.model().state_dict())

    def data(self) -> Tensor:
        samples = self.latents * self.model().config.frame_size
        return torch.randn(20, 1, samples, generator=torch.Generator().manual_seed(1)) / 3

    def encoded(self, x: Tensor) -> Tensor:
        return torch.cat([self.model().encode(one).audio_codes for one in x.split(1)])

    def decoded(self, codes: Tensor) -> Tensor:
        return torch.cat([self.model().decode(one).audio_values for one in codes.split(1)])

    def dataset(self, folder: Path) -> Dataset | None:
        save(folder / "anna" / "1.wav", noise(1.0))
        return build_dataset(compose_open([*MimiFamily().words(self._held.settings), f"dataset.root={folder}"]))


@pytest.mark.slow
class TestMimi(MimiLaws):
    """The laws, over a model of two strides; its latents are more than a window."""


@pytest.mark.slow
class TestMimiWithoutMaps(MimiLaws):
    """Whose entries are as wide as the latents."""

    options: ClassVar[dict[str, Any]] = {**TINY, "codebook_dim": 16, "vector_quantization_hidden_dimension": 16}


@pytest.mark.slow
class TestWholeMimi(MimiLaws):
    """At its own size."""

    options: ClassVar[dict[str, Any]] = {}
    latents = 12


@pytest.mark.slow
def test_what_it_saves_is_its_layout(tmp_path: Path) -> None:
    """The names in the files that it saves are those of the entries, and it reads what we write."""
    safetensors = pytest.importorskip("safetensors.torch")
    mimi(**TINY).save_pretrained(tmp_path)
    saved = safetensors.load_file(tmp_path / "model.safetensors")
    family = MimiFamily()
    settings = family.settings(mimi(**TINY).config.to_dict(), {name: tuple(t.shape) for name, t in saved.items()})
    entries = family.entries(settings)
    assert {name for entry in entries for name in entry.theirs} == {*saved}
    assert type(mimi(**TINY).config)(**settings).frame_rate == settings["frame_rate"]


def test_settings_alone_are_those_of_the_published_model() -> None:
    """12.5 codes of 32 depths per second, with what earlier files say of rotary positions."""
    family = MimiFamily()
    settings = family.settings({"rope_theta": 10000.0, "frame_rate": 12.5, "normalize": False}, {})
    assert (settings["frame_rate"], settings["num_quantizers"], settings["head_dim"]) == (12.5, 32, 64)
    assert family.data(settings).shape == (1, 12 * 1920)
    assert sum(len(entry.theirs) for entry in family.entries(settings)) == 350
    assert family.settings(settings, {}) == settings


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"pad_mode": "reflect"}, "pad_mode=reflect"),
        ({"use_causal_conv": False}, "use_causal_conv=False"),
        ({"num_key_value_heads": 4}, "num_key_value_heads=4"),
        ({"upsample_groups": 1}, "upsample_groups=1"),
        ({"num_semantic_quantizers": 32}, "num_semantic_quantizers=32"),
        ({"num_attention_heads": 7}, "num_attention_heads=7"),
        ({"rope_parameters": {"rope_theta": 10000.0, "rope_type": "yarn"}}, "rope_type=yarn"),
        ({"rope_theta": 500.0}, r"rope_theta=500\.0"),
        ({"frame_rate": "fast"}, "frame_rate=fast"),
        ({"frame_rate": 1000}, "frame_rate=1000"),
        ({"upsampling_ratios": "8654"}, "upsampling_ratios=8654"),
    ],
)
def test_what_no_part_does_is_refused(written: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolkitError, match=message):
        MimiFamily().settings(written, {})


@pytest.mark.long
@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("encoder.down=3", "decoder.up=2"),
        ("decoder.window=9", "decoder.window=9"),
        ("encoder.dilations=[1,3]", "decoder.dilations=|encoder.dilations="),
        ("quantizer.first.bias=true", "quantizer.first.bias=true"),
        ("quantizer.second.inner.inner.normalize=true", r"quantizer\.second\.inner\.inner\.normalize=true"),
        ("quantizer.second.inner.inner.codebook_size=8", "quantizer.second"),
        ("quantizer=vq", "quantizer=vq"),
        ("dataset.form=pcm16", "dataset"),
    ],
)
@pytest.mark.few(3)
def test_a_run_of_other_parts_has_no_settings(word: str, message: str) -> None:
    family = MimiFamily()
    settings = family.settings(TINY, {})
    words = family.words(settings)
    config = compose_open([*(w for w in words if word != "quantizer=vq" or not w.startswith("quantizer")), word])
    data = family.data(settings)
    if word == "dataset.form=pcm16":
        data = type(data)(1, data.axes, levels=1 << 16, rates=data.rates)
    with pytest.raises(ToolkitError, match=message):
        family.settings_of(config, data)


def test_the_way_back_keeps_the_codebook() -> None:
    """Bit for bit, and the statistics where the codebook is their quotient."""
    form, counts = averages(), torch.tensor([3.0, 5.0, 1e-30, 7.0])
    sums = torch.randn(4, 6) * counts[:, None]
    codebook = sums / counts[:, None]
    codebook[2:] = torch.randn(2, 6)
    back = form.there([codebook, sums, counts, torch.tensor(True)])
    ours = form.here(back)
    assert torch.equal(ours[0], codebook)
    assert torch.equal(ours[1][:2], sums[:2])
    assert torch.equal(ours[2][[0, 1, 3]], torch.tensor([3.0, 5.0, 8.0]))
    assert ours[3].item() is True
    theirs = [sums, counts, torch.ones(1)]
    for again, tensor in zip(form.there(form.here(theirs)), theirs, strict=True):
        assert torch.equal(again, tensor)
