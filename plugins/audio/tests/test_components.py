"""Encoders and decoders of sound."""

from __future__ import annotations

from collections.abc import Callable
from math import log, log10, pi, prod
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F

from toolkit import Autoencoder, Condition, DataSpec, Decoder, Encoder, Likelihood
from toolkit.fit import MisfitError
from toolkit.likelihoods.categorical import CategoricalLikelihood
from toolkit.likelihoods.normal import NormalLikelihood
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.testing.decoder import DecoderSuite
from toolkit.testing.encoder import EncoderSuite
from toolkit_audio.dac_decoder import DACDecoder
from toolkit_audio.dac_encoder import DACEncoder
from toolkit_audio.decoder import ConvDecoder
from toolkit_audio.encoder import ConvEncoder
from toolkit_audio.logmel_encoder import SPREAD, LogMelEncoder
from toolkit_audio.mel_encoder import MelEncoder
from toolkit_audio.seanet import reflected
from toolkit_audio.seanet_decoder import SeanetDecoder
from toolkit_audio.seanet_encoder import SeanetEncoder
from toolkit_audio.snac_decoder import Noise, SNACDecoder
from toolkit_audio.snac_encoder import SNACEncoder
from toolkit_audio.snake import Snake
from toolkit_audio.spectra import inverse_stft
from toolkit_audio.vocos_decoder import VocosDecoder
from toolkit_audio.window_attention import HEAD, WindowAttention

SECOND = DataSpec(1, (16000,), levels=256, rates=(16000.0,))
FLOATS = DataSpec(1, (320,), rates=(16000.0,))
PAPER = {64: (2,) * 6, 128: (2,) * 7, 640: (2, 2, 2, 2, 2, 4, 5)}


class TestConvEncoder(EncoderSuite):
    data = DataSpec(1, (64 * 8,), levels=256, rates=(8000.0,))

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return ConvEncoder(data, dim, hidden=8)


class TestOddConvEncoder(EncoderSuite):
    data = DataSpec(1, (30 * 12,), rates=(8000.0,))

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return ConvEncoder(data, dim, hidden=8, strides=(5, 3, 2), residual_blocks=1)


class TestMelEncoder(EncoderSuite):
    data = DataSpec(1, (80 * 16,), levels=256, rates=(8000.0,))

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return MelEncoder(data, dim, hidden=8, hop=40, window=64, bands=10, strides=(2,), residual_blocks=1)


class TestShortSightedMelEncoder(EncoderSuite):
    data = DataSpec(1, (80 * 16,), levels=256, rates=(8000.0,))

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return MelEncoder(data, dim, hidden=8, hop=80, window=96, bands=10, width=1, strides=(), residual_blocks=0)


class TestLogMelEncoder(EncoderSuite):
    data = DataSpec(1, (80 * 16,), levels=256, rates=(8000.0,))

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return LogMelEncoder(data, dim, hop=80, window=96)


class TestConvDecoder(DecoderSuite):
    data = DataSpec(1, (5 * 64,), levels=16, rates=(8000.0,))
    grid = (5,)

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        return ConvDecoder(dim, conditions, likelihood, hidden=8, narrowest=4)


class TestFloatConvDecoder(TestConvDecoder):
    data = DataSpec(1, (5 * 15,), rates=(8000.0,))

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        return ConvDecoder(dim, conditions, likelihood, hidden=8, residual_blocks=0, strides=(5, 3))


ENCODEC: dict[str, Any] = {"dilations": (1,), "shortcut": True, "lstm_layers": 2, "padding": "reflect"}
"""What EnCodec has and SoundStream has not, but for its encoder's last kernel."""
lists_its_weights = pytest.mark.filterwarnings("ignore:The tensor attributes .* assigned during export:UserWarning")
"""An nn.LSTM keeps its weights in a list, too, which torch takes for what the network computes."""


class TestSeanetEncoder(EncoderSuite):
    data = DataSpec(1, (6 * 30,), levels=256, rates=(8000.0,))
    options: ClassVar[dict[str, Any]] = {}

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return SeanetEncoder(data, dim, hidden=4, strides=(2, 3), **self.options)


class TestCausalSeanetEncoder(TestSeanetEncoder):
    options: ClassVar[dict[str, Any]] = {"causal": True}


class TestReflectingEncoder(TestSeanetEncoder):
    data = DataSpec(1, (6 * 60,), rates=(8000.0,))
    options: ClassVar[dict[str, Any]] = {"residual_kernel": 7, "dilations": (1, 2), "padding": "reflect"}


@lists_its_weights
class TestCausalRecurrentEncoder(TestSeanetEncoder):
    options: ClassVar[dict[str, Any]] = {"causal": True, "lstm_layers": 1, "norm": "none"}


@lists_its_weights
class TestEncodecEncoder(TestSeanetEncoder):
    """At 24 kHz."""

    options: ClassVar[dict[str, Any]] = {"causal": True, "last_kernel": 7, **ENCODEC}


@lists_its_weights
class TestStereoEncodecEncoder(TestSeanetEncoder):
    """At 48 kHz."""

    data = DataSpec(2, (6 * 30,), rates=(8000.0,))
    options: ClassVar[dict[str, Any]] = {"norm": "group", "last_kernel": 7, **ENCODEC}


class TestSeanetDecoder(DecoderSuite):
    data = DataSpec(1, (4 * 15,), levels=16, rates=(8000.0,))
    grid = (4,)
    options: ClassVar[dict[str, Any]] = {}

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        return SeanetDecoder(dim, conditions, likelihood, hidden=4, strides=(5, 3), **self.options)


class TestCausalSeanetDecoder(TestSeanetDecoder):
    options: ClassVar[dict[str, Any]] = {"causal": True}


class TestShortcutDecoder(TestSeanetDecoder):
    options: ClassVar[dict[str, Any]] = {
        "dilations": (1, 2),
        "residual_kernel": 5,
        "shortcut": True,
        "last_kernel": 3,
        "norm": "none",
        "causal": True,
    }


@lists_its_weights
class TestEncodecDecoder(TestSeanetDecoder):
    data = DataSpec(1, (4 * 15,), rates=(8000.0,))
    options: ClassVar[dict[str, Any]] = {"causal": True, **ENCODEC}


@lists_its_weights
class TestStereoEncodecDecoder(TestSeanetDecoder):
    data = DataSpec(2, (4 * 15,), rates=(8000.0,))
    options: ClassVar[dict[str, Any]] = {"norm": "group", **ENCODEC}


class TestDACEncoder(EncoderSuite):
    data = DataSpec(1, (6 * 100,), levels=256, rates=(8000.0,))

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return DACEncoder(data, dim, hidden=4, strides=(2, 3))


class TestDACDecoder(DecoderSuite):
    data = DataSpec(1, (4 * 15,), levels=16, rates=(8000.0,))
    grid = (4,)

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        return DACDecoder(dim, conditions, likelihood, hidden=16, strides=(5, 3), tanh=data.levels is None)


class TestFloatDACDecoder(TestDACDecoder):
    data = DataSpec(1, (4 * 15,), rates=(8000.0,))


class TestSNACEncoder(EncoderSuite):
    data = DataSpec(1, (6 * 100,), levels=256, rates=(8000.0,))
    dim = 8
    window: ClassVar[int | None] = None

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return SNACEncoder(data, dim, strides=(2, 3), window=self.window)


class TestAttendingSNACEncoder(TestSNACEncoder):
    data = DataSpec(1, (6 * 11,), rates=(8000.0,))
    dim, window = HEAD, 4


class TestSNACDecoder(DecoderSuite):
    data = DataSpec(1, (4 * 15,), levels=16, rates=(8000.0,))
    grid = (4,)
    hidden, window = 16, None

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        tanh = data.levels is None
        return SNACDecoder(
            dim, conditions, likelihood, hidden=self.hidden, strides=(5, 3), window=self.window, tanh=tanh
        )


class TestAttendingSNACDecoder(TestSNACDecoder):
    data = DataSpec(1, (4 * 15,), rates=(8000.0,))
    hidden, window = HEAD, 3


class TestVocosDecoder(DecoderSuite):
    data = DataSpec(1, (4 * 8,), levels=16, rates=(8000.0,))
    grid = (4,)
    window = 32

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        return VocosDecoder(dim, conditions, likelihood, hidden=8, layers=2, hop=8, window=self.window)


class TestOddVocosDecoder(TestVocosDecoder):
    """Of two channels, and windows that are no whole number of hops."""

    data = DataSpec(2, (4 * 8,), rates=(8000.0,))
    window = 27


def kernels(module: torch.nn.Module) -> list[tuple[int, ...]]:
    return [tuple(p.shape) for name, p in module.named_parameters() if name.endswith("weight")]


@pytest.mark.parametrize("times", list(PAPER))
def test_the_encoder_is_the_papers(times: int) -> None:
    """Six convolutions of stride 2 and window 4 for 64 times, seven for 128 times, and strides to 640 times."""
    encoder = ConvEncoder(SECOND, 64, hidden=32, strides=PAPER[times])
    assert encoder.stride == (times,)
    assert encoder(torch.zeros(1, 1, 6400).long()).shape == (1, 64, 6400 // times)
    if times != 640:
        assert kernels(encoder) == [(32, 1, 4), *[(32, 32, 4)] * (len(PAPER[times]) - 1), (64, 32, 1)]


@torch.no_grad()
def test_a_short_sighted_encoder_hears_one_window_for_a_code() -> None:
    """Whatever else is said, a latent stays as it is; one that sees neighbours does not."""
    options = {"hidden": 8, "hop": 160, "window": 200, "bands": 10, "strides": (), "residual_blocks": 0}
    x = torch.randint(256, (1, 1, 1600))
    other = torch.randint(256, x.shape)
    middle = slice(4 * 160 + 80 - 100, 4 * 160 + 80 + 100)
    other[..., middle] = x[..., middle]
    for encoder, short in (
        (MelEncoder(SECOND, 6, width=1, **options), True),
        (MelEncoder(SECOND, 6, width=3, **options), False),
        (LogMelEncoder(SECOND, 6, hop=160, window=200), True),
    ):
        z, changed = encoder(x), encoder(other)
        assert torch.allclose(z[..., 4], changed[..., 4], atol=1e-5) == short
        assert not torch.allclose(z[..., 3], changed[..., 3], atol=1e-3)


@torch.no_grad()
def test_latents_that_are_not_learned_say_how_loud_which_pitch_is() -> None:
    """A tone in the middle of a band is loudest there, and a tenth of it is by log 10 fainter."""
    data = DataSpec(1, (16000,), rates=(16000.0,))
    encoder = LogMelEncoder(data, 20, hop=640, window=800)
    mel = torch.linspace(0, 2595 * log10(1 + 8000 / 700), 22)[1:-1]
    assert not list(encoder.parameters())
    for band in (4, 10, 17):
        hertz = 700 * (10 ** (float(mel[band]) / 2595) - 1)
        tone = torch.sin(2 * pi * hertz * torch.arange(16000) / 16000).view(1, 1, -1)
        loud, faint = encoder(0.5 * tone)[0, :, 3:-3], encoder(0.05 * tone)[0, :, 3:-3]
        assert (loud.argmax(0) == band).all()
        torch.testing.assert_close((loud - faint)[band], torch.full_like(loud[band], log(10) / SPREAD))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"window": 100, "hop": 160}, "window=100: at least as long as hop=160"), ({"width": 2}, "width=2: an odd")],
)
def test_encoders_that_would_not_hear_all(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MelEncoder(SECOND, 6, **options)  # type: ignore[arg-type]
    if "width" not in options:
        with pytest.raises(ValueError, match=message):
            LogMelEncoder(SECOND, 6, **options)


def test_a_decoder_gives_sound_of_any_length() -> None:
    decoder = ConvDecoder(4, (), CategoricalLikelihood(SECOND), hidden=8)
    assert decoder(torch.zeros(1, 4, 7), {}).shape == (1, 7 * 64)


@pytest.mark.parametrize(("left", "right"), [(0, 0), (3, 0), (0, 2), (4, 5)])
def test_sound_goes_on_backwards_beyond_its_ends(left: int, right: int) -> None:
    """As torch's own padding, where that takes it; what is too short goes on with silence."""
    x = torch.randn(2, 3, 9)
    assert torch.equal(reflected(x, left, right), F.pad(x, (left, right), mode="reflect"))
    short = reflected(x[..., :2], left, right)
    assert torch.equal(short[..., left : left + 2], x[..., :2])
    if left:
        assert torch.equal(short[..., left - 1], x[..., 1])
        assert not short[..., : left - 1].any()
    if right:
        assert torch.equal(short[..., left + 2], x[..., 0])
        assert not short[..., left + 3 :].any()


def test_snake_adds_a_wave_of_its_own_frequency() -> None:
    snake, h = Snake(2).double(), torch.randn(3, 2, 5, dtype=torch.float64)
    with torch.no_grad():
        snake.frequency.copy_(torch.tensor([0.5, 3.0]))
    for channel, a in enumerate((0.5, 3.0)):
        expected = h[:, channel] + torch.sin(a * h[:, channel]).square() / a
        torch.testing.assert_close(snake(h)[:, channel], expected)


@pytest.mark.parametrize(("window", "hop"), [(64, 16), (50, 25), (33, 8)])
def test_the_sound_of_its_own_spectra_is_the_sound(window: int, hop: int) -> None:
    hann, x = torch.hann_window(window, dtype=torch.float64), torch.randn(2, hop * 9, dtype=torch.float64)
    before = (window - hop) // 2
    padded = F.pad(x, (before, window - hop - before))
    spectra = torch.stft(padded, window, hop, window=hann, center=False, return_complex=True)
    assert spectra.shape[2] == 9
    sound = inverse_stft(spectra.real.unsqueeze(1), spectra.imag.unsqueeze(1), hann, hop)
    torch.testing.assert_close(sound.squeeze(1), x)


def test_a_vocos_without_layers_to_add_is_its_head() -> None:
    """A magnitude in one frequency, and all other as faint as it can be: a wave of that frequency."""
    decoder = VocosDecoder(3, (), NormalLikelihood(FLOATS, scale=0.1), hidden=4, layers=1, hop=16, window=64)
    with torch.no_grad():
        decoder.head.weight.zero_()
        decoder.head.bias.fill_(-50.0)
        decoder.head.bias[33:] = 0.0
        decoder.head.bias[4] = 3.0
    x = decoder(torch.randn(1, 3, 20), {}).mean[0, 0, 64:-64]  # type: ignore[index]
    magnitude = torch.fft.rfft(x[:64]).abs()
    assert magnitude.argmax() == 4
    assert magnitude[4] > 100 * magnitude[[0, 1, 2, 6, 7, 8]].max()


@torch.no_grad()
def test_windows_of_attention_know_nothing_of_one_another() -> None:
    """The last one is shorter; a position knows its own whole window."""
    layer, h = WindowAttention(2 * HEAD, 4), torch.randn(2, 2 * HEAD, 10)
    whole = layer(h)
    torch.testing.assert_close(whole, torch.cat([layer(part) for part in h.split(4, 2)], 2))
    h[:, :, 5] += 1
    touched = (layer(h) != whole).any(1).any(0).nonzero().flatten()
    assert touched.tolist() == [4, 5, 6, 7]


@torch.no_grad()
def test_noise_is_one_number_for_each_position_in_training_alone() -> None:
    noise, h = Noise(4), torch.randn(3, 4, 50, dtype=torch.float64)
    noise.double()
    assert torch.equal(noise.eval()(h), h)
    drawn = (noise.train()(h) - h) / noise.linear(h)
    torch.testing.assert_close(drawn, drawn[:, :1].expand_as(drawn))
    assert drawn[:, 0].unique().numel() == 150
    assert abs(drawn[:, 0].std() - 1) < 0.3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SeanetEncoder(SECOND, 3, causal=True, norm="group"), "norm=group: it knows all"),
        (lambda: DACDecoder(3, (), CategoricalLikelihood(SECOND), hidden=24), "hidden=24: a multiple of 16"),
        (lambda: VocosDecoder(3, (), CategoricalLikelihood(SECOND), hop=16, window=24), "window=24: at least two"),
        (lambda: SNACEncoder(SECOND, 12, strides=(2, 2, 2)), r"strides=\[2, 2, 2\]: each doubles .* dim=12"),
        (lambda: SNACEncoder(SECOND, 32, window=8), "window=8: attention needs a multiple of 64 channels, not 32"),
        (lambda: SNACDecoder(3, (), CategoricalLikelihood(SECOND), hidden=24), "hidden=24: a multiple of 16"),
    ],
)
def test_networks_that_cannot_be(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_what_depends_on_all_sound_declares_no_context() -> None:
    """And what is reflected is not causal, as its first latents know what comes."""
    plain = SeanetEncoder(SECOND, 3, hidden=2, causal=True)
    assert plain.causal
    assert plain.context
    recurrent = SeanetEncoder(SECOND, 3, hidden=2, causal=True, lstm_layers=1)
    assert recurrent.causal
    assert recurrent.context is recurrent.stride is None
    mirrored = SeanetEncoder(SECOND, 3, hidden=2, causal=True, padding="reflect")
    assert not mirrored.causal
    assert mirrored.context is None
    assert mirrored.stride == plain.stride


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("strides", [(2,), (3,), (5, 2), (8, 3, 1)])
def test_seanet_has_a_code_for_every_stride(strides: tuple[int, ...], causal: bool) -> None:
    encoder = SeanetEncoder(SECOND, 3, hidden=2, strides=strides, causal=causal)
    decoder = SeanetDecoder(3, (), CategoricalLikelihood(SECOND), hidden=2, strides=strides[::-1], causal=causal)
    for codes in (1, 2, 7):
        z = encoder(torch.zeros(1, 1, codes * prod(strides)).long())
        assert z.shape == (1, 3, codes)
        assert decoder(z, {}).shape == (1, codes * prod(strides))


def test_a_causal_decoder_waits_for_nothing() -> None:
    """What a code says begins at its own samples: read off the gradient."""
    decoder = SeanetDecoder(3, (), CategoricalLikelihood(SECOND), hidden=4, strides=(5, 2), causal=True).double()
    z = torch.randn(1, 3, 8, dtype=torch.float64, requires_grad=True)
    logits = decoder(z, {}).logits.flatten(0, 2)  # type: ignore[attr-defined]
    for sample in (0, 9, 10, 37, 79):
        (gradient,) = torch.autograd.grad(logits[..., sample].sum(), z, retain_graph=True)
        touched = gradient.abs().sum((0, 1)).nonzero().flatten()
        assert touched.max() == sample // 10


def test_strides_that_differ_are_a_misfit() -> None:
    encoder, quantizer = ConvEncoder(SECOND, 8, hidden=4), VectorQuantizer(8, codebook_size=4)
    decoder = ConvDecoder(8, (), CategoricalLikelihood(SECOND), hidden=4, strides=(2,) * 5)
    with pytest.raises(MisfitError, match=r"\(1, 8000\), the data is \(1, 16000\).*\(250,\).*strides"):
        Autoencoder(SECOND, encoder, quantizer, decoder)


def test_activations_keep_their_size_in_the_beginning() -> None:
    z = ConvEncoder(SECOND, 64, hidden=64, strides=PAPER[640])(torch.randint(256, (4, 1, 6400)))
    assert 0.2 < z.std() < 5
    decoder = ConvDecoder(64, (), CategoricalLikelihood(SECOND), hidden=64, strides=PAPER[640][::-1])
    assert 0.02 < decoder(torch.randn(4, 64, 10), {}).logits.std() < 0.5  # type: ignore[attr-defined]
