"""Data in pieces through a model's parts is what the whole gives."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from random import Random

import pytest
import torch
from test_autoencoder import FILM, lifted
from torch import Tensor

from toolkit import chunks
from toolkit.autoencoder import Autoencoder
from toolkit.chunks import decoded, padded, quantized, whole_decoding, whole_encoding
from toolkit.decoders.conv import ConvDecoder
from toolkit.encoders.conv import ConvEncoder
from toolkit.likelihoods.normal import NormalLikelihood
from toolkit.pieces import slide
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.spec import Condition, DataSpec
from toolkit.testing.parts import point_autoencoder

STEP = Condition("step", 5, per_step=True, stride=12)
WAVE = DataSpec(1, (48,), variance=0.3, conditions=(STEP,))


def convolutional() -> Autoencoder:
    """Eight positions to a code; a step is one and a half codes."""
    model = Autoencoder(
        WAVE,
        ConvEncoder(WAVE, 4, hidden=8, strides=(2, 4)),
        VectorQuantizer(4, codebook_size=9, init="random"),
        ConvDecoder(4, (6,), (STEP,), NormalLikelihood(WAVE), hidden=8, strides=(4, 2)),
        decoder_conditions=("step",),
    )
    return model.double().eval()


def cut(x: Tensor, seed: int) -> list[Tensor]:
    """In pieces of random lengths, some of them empty."""
    places = sorted(Random(seed).choices(range(x.shape[2] + 1), k=5))
    return [x[:, :, start:stop] for start, stop in pairwise([0, *places, x.shape[2]])]


def mean(model: Autoencoder) -> chunks.Decode:
    def decode(z: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        x = model.decode(z, conditions).mean
        assert x is not None
        return x.detach()

    return decode


@pytest.mark.parametrize("seed", range(40))
def test_windows_tile_the_whole(seed: int) -> None:
    """Each with all the context that there is, and no more."""
    random = Random(seed)
    size, before, after, length = (
        random.randint(1, 9),
        random.randint(0, 12),
        random.randint(0, 12),
        random.randint(0, 60),
    )
    x, at = torch.arange(length).expand(2, 1, -1), 0
    for window in slide(cut(x, seed), size, before, after):
        own = window.t[:, :, window.own]
        assert torch.equal(own, x[:, :, at : at + size])
        assert window.first == max(0, at - before)
        assert torch.equal(window.t, x[:, :, window.first : at + size + after])
        at += size
    assert at == -(-length // size) * size


def test_all_at_once() -> None:
    x = torch.arange(30).expand(1, 1, -1)
    (window,) = slide(cut(x, 3), None)
    assert torch.equal(window.t, x)
    assert list(slide([x[:, :, :0]], None)) == []


@pytest.mark.parametrize("length", [48, 56, 400, 1200])
def test_pieces_through_convolutions_are_the_whole(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "AT_ONCE", 2)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    try:
        model = convolutional()
        x, step = torch.rand(2, 1, length) * 2 - 1, torch.randint(6, (2, length // 12))
        assert whole_encoding(model) is None
        assert whole_decoding(model) is None
        with torch.no_grad():
            whole = model.quantize(x)
        parts = list(quantized(model, cut(x, length)))
        assert torch.equal(torch.cat([part.codes for part in parts], 2), whole.codes)
        pieces = list(decoded(model, cut(whole.z, length), {"step": step}, mean(model)))
        torch.testing.assert_close(torch.cat(pieces, 2), mean(model)(whole.z, {"step": step}), atol=1e-12, rtol=0)
        assert (len(parts), len(pieces)) == ((1, 1) if length < 96 else (len(parts), len(pieces)))
        assert length < 400 or min(len(parts), len(pieces)) > 1
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_film_through_parts_for_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each picture is coded by itself, and the conditions follow."""
    monkeypatch.setattr(chunks, "AT_ONCE", 1)
    torch.manual_seed(0)
    model = lifted("move", "scene")
    x = torch.randint(8, (2, 3, 11, *FILM.axes[1:]))
    conditions = {"move": torch.randint(5, (2, 11)), "scene": torch.tensor([1, 3])}
    with torch.no_grad():
        whole = model.quantize(x)
    parts = list(quantized(model, cut(x, 1)))
    assert len(parts) > 1
    assert torch.equal(torch.cat([part.codes for part in parts], 2), whole.codes)
    pieces = list(decoded(model, cut(whole.z, 2), conditions, mean(model)))
    assert len(pieces) > 1
    torch.testing.assert_close(torch.cat(pieces, 2), mean(model)(whole.z, conditions))


def test_a_part_without_a_context_takes_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "AT_ONCE", 1)
    model = point_autoencoder(WAVE, 4, VectorQuantizer(4, codebook_size=9, init="random")).eval()
    model.encoder.context = model.decoder.context = None
    assert "declares no context" in (whole_encoding(model) or "")
    assert "declares no context" in (whole_decoding(model) or "")
    x = torch.rand(1, 1, 480)
    (part,) = quantized(model, cut(x, 5))
    with torch.no_grad():
        assert torch.equal(part.codes, model.quantize(x).codes)


def test_a_quantizer_of_all_positions_takes_the_whole() -> None:
    model = convolutional()
    model.quantizer.local = False
    assert "all positions together" in (whole_encoding(model) or "")


@pytest.mark.parametrize("length", [1, 7, 8, 9])
def test_the_last_code_is_filled_up(length: int) -> None:
    x = torch.rand(2, 1, length)
    whole = torch.cat(list(padded(cut(x, length), 8)), 2)
    assert whole.shape[2] == -(-length // 8) * 8
    assert torch.equal(whole, x.index_select(2, torch.arange(whole.shape[2]).clamp(max=length - 1)))
