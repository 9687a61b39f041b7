"""What the networks of codecs are before they have learned anything: functions of what they are given."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import pi

import pytest
import torch
from torch import Tensor, nn

from toolkit import DataSpec, Decoder, Encoder
from toolkit.likelihoods.normal import NormalLikelihood
from toolkit_audio.dac_decoder import DACDecoder
from toolkit_audio.dac_encoder import DACEncoder
from toolkit_audio.mimi_decoder import MimiDecoder
from toolkit_audio.mimi_encoder import MimiEncoder
from toolkit_audio.seanet_decoder import SeanetDecoder
from toolkit_audio.seanet_encoder import SeanetEncoder
from toolkit_audio.snac_decoder import SNACDecoder
from toolkit_audio.snac_encoder import SNACEncoder
from toolkit_audio.starts import SPEECH, of_units, started

SAMPLES = 5120
DATA = DataSpec(1, (SAMPLES,), rates=(16000.0,))
LIKELIHOOD = NormalLikelihood(DATA, scale=0.1)
DOWN, UP = (2, 4, 5, 8), (8, 5, 4, 2)
DIM = 64
EncodecEncoder = partial(
    SeanetEncoder, causal=True, dilations=(1,), shortcut=True, lstm_layers=2, last_kernel=7, padding="reflect"
)
EncodecDecoder = partial(SeanetDecoder, causal=True, dilations=(1,), shortcut=True, lstm_layers=2, padding="reflect")
ATTENTION = {"layers": 2, "heads": 2, "window": 50, "mlp": 128}
CODECS: dict[str, tuple[Callable[..., Encoder], Callable[..., Decoder]]] = {
    "seanet": (partial(SeanetEncoder, hidden=8), partial(SeanetDecoder, hidden=8)),
    "encodec": (partial(EncodecEncoder, hidden=8), partial(EncodecDecoder, hidden=8)),
    "dac": (partial(DACEncoder, hidden=8, strides=DOWN), partial(DACDecoder, hidden=128, strides=UP)),
    "snac": (partial(SNACEncoder, strides=DOWN), partial(SNACDecoder, hidden=128, strides=UP)),
    "mimi": (
        partial(MimiEncoder, hidden=8, strides=(4, 5, 8), **ATTENTION),
        partial(MimiDecoder, hidden=8, strides=(8, 5, 4), **ATTENTION),
    ),
}


def voices(n: int) -> Tensor:
    """As loud as speech ``(n, 1, samples)``: harmonics of a pitch each, that come and go."""
    seconds = torch.arange(SAMPLES) / 16000
    pitch = torch.linspace(90, 240, n).unsqueeze(1)
    tones = [torch.sin(2 * pi * k * pitch * seconds + k) / k for k in range(1, 20)]
    loud = torch.stack(tones).sum(0) * (1.1 + torch.sin(2 * pi * 4 * seconds + pitch))
    return (0.7 * SPEECH * loud / loud.square().mean().sqrt()).unsqueeze(1)


def built(name: str, seed: int = 0) -> tuple[Encoder, Decoder]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder, decoder = CODECS[name]
        return encoder(DATA, DIM).eval(), decoder(DIM, (), LIKELIHOOD).eval()


def power(h: Tensor) -> float:
    return float(h.square().mean())


@torch.no_grad()
@pytest.mark.parametrize("name", CODECS)
def test_latents_and_sound_are_of_the_data_from_the_start(name: str) -> None:
    """With the defaults of PyTorch, 2 % of the latents' power is of the data, and a thousandth or less of the sound's;
    and that is up to some hundred times as loud."""
    x = voices(4)
    for seed in range(2):
        encoder, decoder = built(name, seed)
        z = encoder(x)
        assert 0.01 < power(z) < 4
        assert power(z - z.mean((0, 2), keepdim=True)) > 0.5 * power(z)
        mean = decoder(z, {}).mean
        assert mean is not None
        assert 0.1 < power(mean) / power(x) < 10
        assert power(mean - mean.mean(0)) > 0.2 * power(mean)


@pytest.mark.long
def test_twenty_steps_are_far_nearer_than_silence() -> None:
    """0.04 of silence's error; with the defaults of PyTorch it is 0.61."""
    x = voices(2)[..., :1600]
    encoder, decoder = built("seanet")
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, 1e-3, betas=(0.8, 0.99))
    error = torch.ones(())
    for _ in range(21):
        mean = decoder(encoder(x), {}).mean
        assert mean is not None
        error = (mean - x).square().mean() / x.square().mean()
        optimizer.zero_grad()
        error.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    assert error < 0.2


@torch.no_grad()
@pytest.mark.parametrize(
    ("layer", "share"),
    [
        (nn.Conv1d(12, 64, 7), 1),
        (nn.Conv1d(64, 64, 7, groups=64), 1),
        (nn.ConvTranspose1d(64, 32, 10, stride=5), 5),
        (nn.ConvTranspose1d(64, 64, 4, stride=2, groups=64, bias=False), 2),
    ],
)
def test_a_convolution_keeps_the_power(layer: nn.Module, share: int) -> None:
    generator = torch.Generator().manual_seed(0)
    started(layer, 1.0, share)
    h = torch.randn(32, int(layer.in_channels), 200, generator=generator)  # type: ignore[call-overload]
    inner = layer(h)[..., 20:-20]
    assert 0.8 < power(inner) < 1.25


def test_several_units_add_as_much_as_one() -> None:
    assert 3 * of_units(3) ** 2 == pytest.approx(1)
