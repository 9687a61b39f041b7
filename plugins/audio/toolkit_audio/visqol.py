"""Quality of reconstructed sound, as a model of hearing judges it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from torch import Tensor

from toolkit import Bound, DataSpec, Metric
from toolkit.metric import Direction
from toolkit_audio.means import Means, pairs, required
from toolkit_audio.reading import resample
from toolkit_audio.waveform import sample_rate_of


@final
class ViSQOLMetric(Metric):
    """ViSQOL (Chinen et al. 2020, arXiv:2004.09584) of the likelihood's mean against x: ``visqol`` is the mean over
    examples, from 1 to 5, in audio mode, at 48 kHz; ``visqol_speech`` is that of speech mode, at 16 kHz. Silent
    examples are left out, and an autoregressive decoder, which has no mean, is not judged.

    It takes longer than the sound lasts: choose it where a run is evaluated. In speech mode figures are those of the
    C++ program where the package ai-edge-litert is installed; else they are higher. Needs the package visqol-python.

    Args:
        speech: whether the mode is that of speech.
    """

    directions: ClassVar[Mapping[str, Direction]] = {"visqol": "max"}

    def __init__(self, data: DataSpec, *, speech: bool = False) -> None:
        self.data, self.rate = data, sample_rate_of(data)
        self.name, self.wanted = ("visqol_speech", 16000) if speech else ("visqol", 48000)
        self._means = Means()
        self._judge = required("audio_visqol", "visqol.api", "visqol").VisqolApi()
        self._judge.create(mode="speech" if speech else "audio")

    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        for pair in pairs(x, output.likelihood, self.data):
            estimate, target = (resample(sound, self.rate, self.wanted).astype("float64") for sound in pair)
            result = self._judge.measure_from_arrays(target, estimate, self.wanted)
            self._means.add(self.name, float(result.moslqo))

    def compute(self) -> dict[str, float]:
        return self._means.compute()

    def state(self) -> dict[str, tuple[float, int]]:
        return self._means.state()

    def merge(self, state: dict[str, tuple[float, int]]) -> None:
        self._means.merge(state)
