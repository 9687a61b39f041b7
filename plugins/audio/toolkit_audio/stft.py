"""An objective that hears."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import final

import torch
from torch import Tensor

from toolkit import Autoencoder, Bound, DataSpec, Loss, Objective, ToolkitError
from toolkit.objectives.elbo import ELBO
from toolkit_audio.spectra import FAINTEST, magnitudes, mel_filters
from toolkit_audio.waveform import heard, sample_rate_of


@final
class STFTObjective(Objective):
    """Another objective and, at several resolutions, how far the spectrogram of the likelihood's mean lies from x's::

        L = share L_inner + weight dims mean over windows of ( c |S - S'| / |S|  +  mean |log S - log S'| )

    with magnitudes S of x and S' of the mean, as waveforms (Yamamoto et al. 2020, arXiv:1910.11480, eq. 6): spectral
    convergence and log magnitudes. They forgive a phase that the codes cannot know. Per dim of x, as the likelihood's
    nats grow with it.

    Args:
        inner: what it is added to.
        weight: nats per dim of x for a distance of 1.
        convergence: c, the weight of the first term, which hears the loudest sounds most.
        share: what the inner objective's loss is multiplied by, its quantizer's part included.
        windows: samples of the Hann windows; hops are a quarter of these.
        mel_bands: how many bands of the mel scale stand for each window's frequencies, so that low ones count for more,
            as to the ear; null: every frequency for itself.
    """

    def __init__(
        self,
        data: DataSpec,
        *,
        inner: Callable[[], Objective] = ELBO,
        weight: float = 1.0,
        convergence: float = 1.0,
        share: float = 1.0,
        windows: tuple[int, ...] = (256, 512, 1024, 2048),
        mel_bands: int | None = None,
    ) -> None:
        super().__init__()
        if not windows or min(windows) < 4:
            raise ValueError(f"windows={list(windows)}: at least one, of 4 samples or more")
        self.data, self.inner = data, inner()
        self.needs_posterior = self.inner.needs_posterior
        self.weight, self.convergence, self.share = weight, convergence, share
        self.sizes, self.has_bands = windows, mel_bands is not None
        for size in windows:
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)
            if mel_bands is not None:
                filters = mel_filters(mel_bands, size, sample_rate_of(data))
                self.register_buffer(f"bands_{size}", filters, persistent=False)

    def forward(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        made = self.inner(autoencoder, x, conditions)
        mean = made.likelihood.mean
        if mean is None:
            raise ToolkitError(
                "objective=audio_stft compares x with the likelihood's mean, and that of an autoregressive decoder has"
                " none: choose decoder=audio_conv or audio_seanet, or objective=elbo"
            )
        distance = self.distance(heard(mean, self.data), heard(self.data.scale(x), self.data))
        loss = self.share * made.loss + self.weight * prod(self.data.last(1).axes) * distance
        return made._replace(loss=loss, terms={**made.terms, "stft": distance})

    def bound(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Bound:
        """The inner objective's."""
        return self.inner.bound(autoencoder, x, conditions)

    def distance(self, made: Tensor, target: Tensor) -> Tensor:
        """Between waveforms ``(batch, channels, samples)``, over all windows, 0-d."""
        made, target = made.flatten(0, 1), target.flatten(0, 1).to(made.dtype)
        parts = [
            spectral_distance(self._seen(made, size), self._seen(target, size), self.convergence) for size in self.sizes
        ]
        return torch.stack(parts).mean()

    def _seen(self, waveform: Tensor, size: int) -> Tensor:
        """``(batch, bands, frames)`` through a window."""
        seen = magnitudes(waveform, self.get_buffer(f"window_{size}").to(waveform.dtype), size // 4)
        return self.get_buffer(f"bands_{size}").to(seen.dtype) @ seen if self.has_bands else seen


def spectral_distance(made: Tensor, target: Tensor, weight: float = 1.0) -> Tensor:
    """Spectral convergence, weighted, and mean difference of log magnitudes of ``(batch, bands, frames)``, 0-d.

    Under -100 dB nothing is told apart.
    """
    made, target = made.clamp(min=FAINTEST), target.clamp(min=FAINTEST)
    convergence = (made - target).flatten(1).norm(dim=1) / target.flatten(1).norm(dim=1)
    distance: Tensor = weight * convergence.mean() + (made.log() - target.log()).abs().mean()
    return distance
