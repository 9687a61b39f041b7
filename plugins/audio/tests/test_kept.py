"""A causal SEANet as sound arrives: it goes on from its state, and nothing goes through it twice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from toolkit import Condition, DataSpec
from toolkit.autoencoder import Autoencoder
from toolkit.flow import Flow
from toolkit.likelihoods.normal import NormalLikelihood
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.sample import decode
from toolkit.streams import StreamDecoder, StreamEncoder
from toolkit.testing.context import close_to, cutting, in_float64, randomized
from toolkit_audio.seanet_decoder import SeanetDecoder
from toolkit_audio.seanet_encoder import SeanetEncoder

SPEAKER = Condition("speaker", 3)
PHONE = Condition("phone", 4, per_step=True, stride=6)
SOUND = DataSpec(1, (6 * 20,), rates=(8000.0,), conditions=(SPEAKER, PHONE))


def model(**options: Any) -> Autoencoder:
    conditions = {"speaker": SPEAKER, "phone": PHONE.resample(120, 20)}
    decoder = SeanetDecoder(
        4, tuple(conditions.values()), NormalLikelihood(SOUND, scale=1.0), hidden=2, strides=(3, 2), **options
    )
    encoder = SeanetEncoder(SOUND, 4, hidden=2, strides=(2, 3), **options)
    quantizer = VectorQuantizer(4, codebook_size=9, init="random")
    return randomized(Autoencoder(SOUND, encoder, quantizer, decoder, decoder_conditions=tuple(conditions)).eval())


def pushed(stream: StreamEncoder | StreamDecoder, pieces: list[Tensor]) -> Tensor:
    return torch.cat([*map(stream.push, pieces), stream.flush()], 2)


@pytest.mark.long
@pytest.mark.parametrize("options", [{}, {"shortcut": True, "norm": "none", "dilations": (1, 2)}], ids=["own", "other"])
@torch.no_grad()
def test_any_cutting_gives_the_whole_once(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """With conditions of both kinds, and more than a context before."""
    with in_float64():
        autoencoder, x = model(causal=True, **options), torch.rand(2, 1, 6 * 40) * 2 - 1
        known = {"speaker": torch.tensor([0, 2]), "phone": torch.randint(4, (2, 40))}
        codes = autoencoder.quantize(x).codes
        sound = decode(autoencoder, codes, known)
        for seed in range(4):
            ears = StreamEncoder(Flow(autoencoder), SOUND, autoencoder.code_spec, lambda n: {})
            mouth = StreamDecoder(Flow(autoencoder), SOUND, autoencoder.code_spec, lambda n: known, 0)
            assert (ears.latency, mouth.latency) == (6, 0)
            ears.push(x[:, :, :0]), mouth.push(codes[:, :, :0])  # opens them, which tries the parts
            with monkeypatch.context() as patch:
                for part in (autoencoder.encoder, autoencoder.decoder):
                    patch.setattr(part, "forward", refused)
                assert torch.equal(pushed(ears, cutting(x, seed)), codes)
                close_to(pushed(mouth, cutting(codes, seed + 4)), sound)


def refused(*inputs: object) -> None:
    raise AssertionError("it goes through the whole part")


@pytest.mark.long
def test_what_sees_ahead_has_no_stream_of_its_own() -> None:
    for options in ({}, {"causal": True, "padding": "reflect"}, {"causal": True, "lstm_layers": 1}):
        autoencoder = model(**options)
        assert autoencoder.encoder.stream() is None
        assert autoencoder.decoder.mean_stream() is None
