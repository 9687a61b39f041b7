"""Whether a voice is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from toolkit import Bound, DataSpec, Metric
from toolkit.device import double
from toolkit_audio.quality import SILENT
from toolkit_audio.reading import resample
from toolkit_audio.voice_encoder import RATE, VoiceEncoder
from toolkit_audio.waveform import sample_rate_of, scaled_to_waveform, to_waveform

Sums = tuple[Tensor, Tensor]
"""By speaker: how many, and the sum of their embeddings."""


@final
class SpeakerMetric(Metric):
    """``speaker_similarity``: the cosine of the embeddings of the likelihood's mean and of x by a network that tells
    speakers apart, a mean over examples that are not silent: 1 where the voice is kept. ``sample_speaker_similarity``,
    where the data has a condition ``speaker``: that of a sample and of the mean voice, over the split, of the speaker
    under whom it was drawn.

    The network is that of the package Resemblyzer (Wan et al. 2018, arXiv:1710.10467), and figures of other networks do
    not compare. It hears 1.6 seconds at once, and shorter examples followed by silence, so that figures compare at one
    length alone. An autoregressive decoder, which has no mean, is not judged.

    Args:
        weights: Resemblyzer's file pretrained.pt; null: that of the installed package.
    """

    def __init__(self, data: DataSpec, *, weights: str | None = None) -> None:
        self.data, self.rate, self._encoder = data, sample_rate_of(data), VoiceEncoder.load(weights)
        self._sum, self._count = 0.0, 0
        speakers = next((condition.size for condition in data.conditions if condition.name == "speaker"), None)
        self._of_data, self._of_samples = (_nobody(speakers) for _ in range(2))

    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        target = to_waveform(x, self.data)[:, 0].cpu()
        loud, voices = target.square().mean(1) > SILENT, self._voices(target)
        _gather(self._of_data, voices, conditions, loud)
        mean = output.likelihood.mean
        if mean is not None:
            alike = (self._voices(scaled_to_waveform(mean, self.data)[:, 0].cpu()) * voices).sum(1)
            self._sum += float(alike[loud].sum())
            self._count += int(loud.sum())

    def update_samples(self, x: Tensor, conditions: Mapping[str, Tensor]) -> None:
        waveform = to_waveform(x, self.data)[:, 0].cpu()
        _gather(self._of_samples, self._voices(waveform), conditions, waveform.square().mean(1) > SILENT)

    def compute(self) -> dict[str, float]:
        figures = {"speaker_similarity": self._sum / self._count} if self._count else {}
        (heard, known), (drawn, voices) = self._of_data, self._of_samples
        both = (heard > 0) & (drawn > 0)
        if both.any():
            alike = (F.normalize(known, dim=1) * voices).sum(1)[both].sum()
            figures["sample_speaker_similarity"] = float(alike / drawn[both].sum())
        return figures

    def state(self) -> tuple[float, int, Sums, Sums]:
        return self._sum, self._count, self._of_data, self._of_samples

    def merge(self, state: tuple[float, int, Sums, Sums]) -> None:
        total, count, *both = state
        self._sum, self._count = self._sum + total, self._count + count
        for own, other in zip((self._of_data, self._of_samples), both, strict=True):
            for mine, theirs in zip(own, other, strict=True):
                mine += theirs

    @torch.no_grad()
    def _voices(self, waveform: Tensor) -> Tensor:
        """Of waveforms ``(batch, samples)`` on the CPU, where the network is; embeddings in float64."""
        waves = torch.nan_to_num(waveform.float()).clamp(-1, 1).numpy()
        heard = np.stack([resample(wave, self.rate, RATE) for wave in waves])
        return double(self._encoder(torch.from_numpy(heard)))


def _nobody(speakers: int | None) -> Sums:
    return torch.zeros(speakers or 0, dtype=torch.double), torch.zeros(speakers or 0, 256, dtype=torch.double)


def _gather(sums: Sums, voices: Tensor, conditions: Mapping[str, Tensor], loud: Tensor) -> None:
    """Adds embeddings to those of their speakers; those of no known speaker are left out."""
    if not len(sums[0]) or "speaker" not in conditions:
        return
    speakers = conditions["speaker"].cpu()
    loud = loud & (speakers < len(sums[0]))
    sums[0].index_add_(0, speakers[loud], torch.ones(int(loud.sum()), dtype=torch.double))
    sums[1].index_add_(0, speakers[loud], voices[loud])
