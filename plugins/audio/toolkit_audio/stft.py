"""A spectrogram loss added to another objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Annotated, final

import torch
from torch import Tensor

from toolkit import Autoencoder, Bound, DataSpec, Loss, Objective, ToolkitError
from toolkit.device import in_float32
from toolkit.nn.codebook import upcast
from toolkit.objectives.elbo import ELBO
from toolkit.objectives.shares import Share, measured_at
from toolkit.ranges import NonNegative, PositiveInt, Range
from toolkit_audio.spectra import FAINTEST, check_windows, magnitudes, mel_filters
from toolkit_audio.waveform import sample_rate_of, scaled_to_waveform


@final
class STFTObjective(Objective):
    """Another objective plus, at several resolutions, the distance of the spectrograms of the likelihood's mean and x::

        L = share L_inner + weight dims mean over windows of ( c |S - S'| / |S|  +  mean |log S - log S'| )

    with magnitudes S of x and S' of the mean, as waveforms (Yamamoto et al. 2020, arXiv:1910.11480, eq. 6): spectral
    convergence and log magnitudes. They ignore phases, which codes cannot represent. The term is multiplied by the dims
    of x, as the likelihood's nats grow with them. With ``balance`` its gradient is weighed instead of its value, as the
    balancer of EnCodec does (Défossez et al. 2022, arXiv:2210.13438, section 3.4).

    ``windows=[32,64,128,256,512,1024,2048] window_bands=[5,10,20,40,80,160,320] convergence=0`` is the mel distance of
    DAC (Kumar et al. 2023, arXiv:2306.06546, section 3.4), but that logs are natural, which are 2.3 times those to base
    10, that bands are evenly spaced on O'Shaughnessy's mel scale, and that a magnitude of 1 is a sine's of amplitude 1.

    Args:
        inner: the objective that it is added to.
        weight: nats per dim of x for a distance of 1; not used where there is a balance.
        convergence: c, the weight of the first term, which is dominated by the loudest sounds.
        share: factor on the inner objective's loss, its quantizer's part included.
        windows: samples of the Hann windows; hops are a quarter of these.
        mel_bands: bands of the mel scale that each window's frequencies are reduced to, so that low ones count for
            more, as in the ear; null: all frequencies.
        window_bands: mel bands of each window by itself, in place of ``mel_bands``: short windows have few frequencies.
        balance: the share that the distance has of the gradient at the likelihood's parameters, whatever the scale of
            the inner objective; null: as ``weight`` says.
    """

    def __init__(
        self,
        data: DataSpec,
        *,
        inner: Callable[[], Objective] = ELBO,
        weight: NonNegative = 1.0,
        convergence: NonNegative = 1.0,
        share: NonNegative = 1.0,
        windows: tuple[PositiveInt, ...] = (256, 512, 1024, 2048),
        mel_bands: PositiveInt | None = None,
        window_bands: tuple[PositiveInt, ...] | None = None,
        balance: Annotated[float, Range(least=0, below=1)] | None = None,
    ) -> None:
        super().__init__()
        check_windows(windows)
        _check_bands(windows, mel_bands, window_bands)
        self.data, self.inner = data, inner()
        self.needs_posterior = self.inner.needs_posterior
        self.beyond = (*getattr(self.inner, "beyond", ()), "a distance of spectrograms")
        self.weight, self.convergence, self.share = weight, convergence, share
        self.balance = None if balance is None else Share(balance)
        bands = window_bands or (mel_bands,) * len(windows)
        self.sizes, self.has_bands = windows, bands[0] is not None
        for size, of_window in zip(windows, bands, strict=True):
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)
            if of_window is not None:
                filters = mel_filters(of_window, size, sample_rate_of(data))
                self.register_buffer(f"bands_{size}", filters, persistent=False)

    def forward(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        output = self.inner(autoencoder, x, conditions)
        mean = output.likelihood.mean
        if mean is None:
            raise ToolkitError(
                "objective=audio_stft compares x with the likelihood's mean, and an autoregressive decoder has no mean:"
                " choose decoder=audio_conv or audio_seanet, or objective=elbo"
            )
        target = scaled_to_waveform(self.data.scale(x), self.data)
        distance = self.distance(scaled_to_waveform(mean, self.data), target)
        loss, terms = self.share * output.loss, {**output.terms, "stft": distance.detach()}
        if self.balance is None:
            loss = loss + self.weight * prod(self.data.last(1).axes) * distance
            return output._replace(loss=loss, terms=terms)
        shared = self.balance(loss, distance, measured_at(output.likelihood))
        terms |= {"stft_weight": shared.weight.detach(), "stft_share": shared.share.detach()}
        return output._replace(loss=shared.loss, terms=terms)

    def bound(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Bound:
        """The inner objective's."""
        return self.inner.bound(autoencoder, x, conditions)

    def distance(self, estimate: Tensor, target: Tensor) -> Tensor:
        """Of waveforms ``(batch, channels, samples)``, over all windows, 0-d; in at least float32."""
        with in_float32(estimate.device):
            estimate = upcast(estimate).flatten(0, 1)
            target = target.flatten(0, 1).to(estimate.dtype)
            pairs = [(self._spectrogram(estimate, size), self._spectrogram(target, size)) for size in self.sizes]
            return torch.stack([spectral_distance(*pair, self.convergence) for pair in pairs]).mean()

    def _spectrogram(self, waveform: Tensor, size: int) -> Tensor:
        """``(batch, bands, frames)`` with windows of ``size`` samples."""
        spectrum = magnitudes(waveform, self.get_buffer(f"window_{size}").to(waveform.dtype), size // 4)
        return self.get_buffer(f"bands_{size}").to(spectrum.dtype) @ spectrum if self.has_bands else spectrum


def _check_bands(windows: tuple[int, ...], mel_bands: int | None, window_bands: tuple[int, ...] | None) -> None:
    if window_bands is None:
        return
    if mel_bands is not None:
        raise ValueError(
            f"window_bands={list(window_bands)}: they stand in place of mel_bands={mel_bands}: leave one out"
        )
    if len(window_bands) != len(windows):
        raise ValueError(f"window_bands={list(window_bands)}: one number for each of windows={list(windows)}")


def spectral_distance(estimate: Tensor, target: Tensor, weight: float = 1.0) -> Tensor:
    """Spectral convergence, weighted, and mean difference of log magnitudes of ``(batch, bands, frames)``, 0-d.

    Magnitudes below -100 dB are clamped.
    """
    estimate, target = estimate.clamp(min=FAINTEST), target.clamp(min=FAINTEST)
    convergence = (estimate - target).flatten(1).norm(dim=1) / target.flatten(1).norm(dim=1)
    distance: Tensor = weight * convergence.mean() + (estimate.log() - target.log()).abs().mean()
    return distance
