"""The objective that hears."""

from __future__ import annotations

from collections.abc import Mapping
from math import log, pi
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from toolkit import Autoencoder, DataSpec, Decoder, Distribution, Objective, ToolkitError
from toolkit.objectives.elbo import ELBO
from toolkit.objectives.vimco import VIMCO
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.testing.objective import ObjectiveSuite
from toolkit.testing.parts import PointEncoder, point_autoencoder, random_data
from toolkit_audio.logmel_encoder import LogMelEncoder
from toolkit_audio.spectra import log_mel, magnitudes, mel_filters
from toolkit_audio.stft import STFTObjective, spectral_distance

SOUND = DataSpec(1, (96,), levels=256, rates=(8000.0,))
FLOATS = DataSpec(1, (96,), rates=(8000.0,))


class TestSTFTObjective(ObjectiveSuite):
    data: ClassVar[DataSpec] = SOUND

    def make(self, data: DataSpec) -> Objective:
        return STFTObjective(data, windows=(16, 32))


class TestSTFTObjectiveOfFloats(TestSTFTObjective):
    data: ClassVar[DataSpec] = FLOATS


class TestBalancedSTFTObjective(TestSTFTObjective):
    """As EnCodec weighs it."""

    data: ClassVar[DataSpec] = FLOATS

    def make(self, data: DataSpec) -> Objective:
        return STFTObjective(data, windows=(16, 32), balance=0.3)


def sine(frequency: float, amplitude: float = 1.0) -> Tensor:
    return amplitude * torch.sin(2 * pi * frequency * torch.arange(4000) / 8000)


def test_a_sine_has_its_amplitude_at_its_frequency() -> None:
    spectrum = magnitudes(sine(1000, 0.3)[None], torch.hann_window(256), 64)[0, :, 4:-4]
    assert spectrum.argmax(0).unique().tolist() == [1000 * 256 // 8000]
    torch.testing.assert_close(spectrum.amax(0), torch.full((spectrum.shape[1],), 0.3), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("bands", "size", "rate"), [(80, 1024, 16000), (40, 512, 8000)])
def test_mel_filters_are_torchaudios(bands: int, size: int, rate: int, functional: ModuleType) -> None:
    theirs = functional.melscale_fbanks(size // 2 + 1, 0.0, rate / 2, bands, rate, mel_scale="htk")
    torch.testing.assert_close(mel_filters(bands, size, rate), theirs.T, rtol=1e-3, atol=1e-4)


def test_the_loss_is_the_inner_one_and_the_distance() -> None:
    autoencoder, x = point_autoencoder(SOUND).eval(), random_data(SOUND, 3)
    inner, made = ELBO()(autoencoder, x, {}), STFTObjective(SOUND, weight=0.5, share=2.0)(autoencoder, x, {})
    assert made.terms["stft"] > 0
    torch.testing.assert_close(made.loss, 2 * inner.loss + 0.5 * 96 * made.terms["stft"])
    torch.testing.assert_close(made.terms["nll"], inner.terms["nll"])


def test_the_distance_of_a_waveform_from_itself_is_zero_and_hears_no_phase() -> None:
    objective = STFTObjective(FLOATS, windows=(256, 512))
    one, moved, other = (sine(f)[None, None] for f in (500, 500, 700))
    moved = moved.roll(4, 2)
    assert objective.distance(one, one) == 0
    assert objective.distance(moved, one) < 0.2 * objective.distance(other, one)


def test_half_as_loud_is_half_as_much_and_log_two_away() -> None:
    target = torch.rand(2, 5, 7) + 0.1
    torch.testing.assert_close(spectral_distance(target / 2, target), torch.tensor(0.5 + log(2)))
    torch.testing.assert_close(spectral_distance(target / 2, target, weight=0.2), torch.tensor(0.1 + log(2)))


def test_autocast_rounds_neither_distance_nor_log_mel() -> None:
    """In bfloat16 a distance has three digits: a converged codec would be steered by rounding."""
    objective, encoder = (
        STFTObjective(FLOATS, windows=(256,), mel_bands=20),
        LogMelEncoder(FLOATS, 20, hop=32, window=64),
    )
    one, other = sine(500)[None, None], sine(510)[None, None]
    plain = [objective.distance(one, other), log_mel(one[0], 8000, 256, 64), encoder(one)]
    with torch.autocast("cpu", torch.bfloat16):
        cast = [objective.distance(one, other), log_mel(one[0], 8000, 256, 64), encoder(one)]
        assert objective.distance(one.bfloat16(), other).dtype == torch.float32
    for ours, theirs in zip(cast, plain, strict=True):
        assert ours.dtype == torch.float32
        assert ours.equal(theirs)


@pytest.mark.long
@pytest.mark.parametrize("scale", [0.01, 1.0])
def test_the_share_of_the_gradient_is_the_one_that_was_asked(scale: float) -> None:
    """Whatever the scale of the inner objective's loss: read off the gradients at the mean, after a few batches."""
    autoencoder = point_autoencoder(FLOATS)
    objective = STFTObjective(FLOATS, windows=(16, 32), balance=0.3, share=scale).train()
    shares = []
    for seed in range(50):
        x = random_data(FLOATS, 64, seed)
        made = objective(autoencoder, x, {})
        mean = made.likelihood.mean
        (whole,) = torch.autograd.grad(made.loss, mean, retain_graph=True)
        (plain,) = torch.autograd.grad(scale * made.terms["nll"], mean, retain_graph=True)
        of_term, of_inner = ((g.flatten(1).norm(dim=1).mean()) for g in (whole - plain, plain))
        share = (of_term / (of_term + of_inner)).item()
        torch.testing.assert_close(made.terms["stft_share"].item(), share, rtol=1e-3, atol=1e-4)
        shares.append(share)
    assert sum(shares[10:]) / 40 == pytest.approx(0.3, abs=0.05)
    assert not STFTObjective(FLOATS).state_dict()


def test_the_distance_can_be_dacs() -> None:
    """The mean absolute difference of logs of mel magnitudes, with bands for each window."""
    sizes, bands = (32, 64), (5, 10)
    objective = STFTObjective(FLOATS, windows=sizes, window_bands=bands, convergence=0.0)
    one, other = torch.rand(2, 3, 1, 96) - 0.5
    expected = [
        (log_mel(one[:, 0], 8000, size, size // 4, n) - log_mel(other[:, 0], 8000, size, size // 4, n)).abs().mean()
        for size, n in zip(sizes, bands, strict=True)
    ]
    torch.testing.assert_close(objective.distance(one, other), torch.stack(expected).mean())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_bands": (5,)}, r"window_bands=\[5\]: one number for each of windows=\[256, 512"),
        ({"windows": (16,), "window_bands": (5,), "mel_bands": 3}, r"window_bands=\[5\]: .*mel_bands=3"),
        ({"windows": ()}, r"windows=\[\]: at least one"),
    ],
)
def test_bands_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        STFTObjective(FLOATS, **options)


def test_silence_is_as_near_as_it_can_be() -> None:
    autoencoder = point_autoencoder(FLOATS)
    made = STFTObjective(FLOATS, windows=(16,))(autoencoder, torch.zeros(2, *FLOATS.shape), {})
    made.loss.backward()
    assert made.loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in autoencoder.parameters())


def test_it_needs_what_its_inner_objective_needs() -> None:
    assert not STFTObjective(SOUND).needs_posterior
    assert STFTObjective(SOUND, inner=lambda: VIMCO(samples=2)).needs_posterior


class _NoMean(Distribution):
    def __init__(self, base: Distribution) -> None:
        self.base, self.shape = base, base.shape

    mean = None

    def log_prob(self, x: Tensor) -> Tensor:
        return self.base.log_prob(x)

    def sample(self, generator: torch.Generator | None = None, temperature: float = 1.0) -> Tensor:
        return self.base.sample(generator, temperature)


class _Autoregressive(Decoder):
    def __init__(self, inner: Decoder) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        return _NoMean(self.inner(z, conditions))


def test_a_decoder_without_a_mean_is_told_apart() -> None:
    decoder = _Autoregressive(point_autoencoder(SOUND).decoder)
    autoencoder = Autoencoder(SOUND, PointEncoder(SOUND, 4), VectorQuantizer(4, codebook_size=3), decoder)
    with pytest.raises(ToolkitError, match=r"autoregressive.*audio_conv"):
        STFTObjective(SOUND)(autoencoder, random_data(SOUND, 2), {})
