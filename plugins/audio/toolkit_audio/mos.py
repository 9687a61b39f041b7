"""Quality of speech without a reference, as listeners would rate it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import numpy as np
from torch import Tensor

from toolkit import Bound, DataSpec, Metric
from toolkit.metric import Direction
from toolkit_audio.means import Means, alone, pairs, required
from toolkit_audio.reading import resample
from toolkit_audio.waveform import sample_rate_of

RATE = 16000
FIGURES = {"ovrl_mos": "dnsmos", "sig_mos": "dnsmos_signal", "bak_mos": "dnsmos_background", "p808_mos": "dnsmos_p808"}
"""What the package calls them, and we."""


@final
class MOSMetric(Metric):
    """DNSMOS (Reddy et al. 2022, arXiv:2110.01763): the rating of the likelihood's mean that listeners would give, from
    1 to 5, by a network that hears no original.

    ``dnsmos``: overall; ``dnsmos_signal`` and ``dnsmos_background``: of the speech and of what else is heard;
    ``dnsmos_p808``: overall by its older network; each is a mean over examples that are not silent. ``dnsmos_of_data``
    and so on are the same of x, which a codec can hardly pass, and ``dnsmos_of_samples`` of samples. The network hears
    9 seconds, and shorter examples over and over, so that figures compare only at one length. An autoregressive
    decoder, which has no mean, is not judged but by its samples.
    Needs the package speechmos, which brings the weights.
    """

    directions: ClassVar[Mapping[str, Direction]] = {"dnsmos": "max"}

    def __init__(self, data: DataSpec) -> None:
        self.data, self.rate, self._means = data, sample_rate_of(data), Means()
        self._judge = required("audio_mos", "speechmos.dnsmos", "mos")

    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        for pair in pairs(x, output.likelihood, self.data):
            for sound, suffix in zip(pair, ("", "_of_data"), strict=True):
                self._rate(sound, suffix)

    def update_samples(self, x: Tensor, conditions: Mapping[str, Tensor]) -> None:
        for sound in alone(x, self.data):
            self._rate(sound, "_of_samples")

    def compute(self) -> dict[str, float]:
        return self._means.compute()

    def state(self) -> dict[str, tuple[float, int]]:
        return self._means.state()

    def merge(self, state: dict[str, tuple[float, int]]) -> None:
        self._means.merge(state)

    def _rate(self, sound: np.ndarray, suffix: str) -> None:
        figures = self._judge.run(resample(sound, self.rate, RATE).clip(-1, 1), RATE)
        for theirs, ours in FIGURES.items():
            self._means.add(ours + suffix, float(figures[theirs]))
