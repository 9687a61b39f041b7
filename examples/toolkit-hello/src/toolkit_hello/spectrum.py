"""The distance of a reconstruction's spectrum from that of the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from toolkit import Bound, DataSpec, Metric
from toolkit.device import double

FLOOR = 1e-4
"""Relative to a spectrum's largest power: powers are clamped to it, so that the distance of zeros is finite."""


@final
class SpectrumMetric(Metric):
    """``spectrum_db``, the log-spectral distance of the likelihood's mean from the data (Gray and Markel 1976).

    The root mean square over frequencies of the decibels between their power spectra, over all axes at once, averaged
    over channels and examples. Unlike the squared error it detects blur, which removes many decibels of little energy
    from the high frequencies. Powers more than 40 decibels below the data's largest count as 40 below. Empty if the
    likelihood has no mean.
    """

    def __init__(self, data: DataSpec) -> None:
        if not data.ordered:
            raise ValueError("codes as data have no order, and so no spectrum; remove this metric")
        self.data = data
        self._sum, self._count = 0.0, 0

    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        mean = output.likelihood.mean
        if mean is None:
            return
        distance = log_spectral_distance(self.data.scale(x), mean)
        self._sum += float(distance.sum())
        self._count += distance.numel()

    def state(self) -> tuple[float, int]:
        return self._sum, self._count

    def merge(self, state: tuple[float, int]) -> None:
        self._sum += state[0]
        self._count += state[1]

    def compute(self) -> dict[str, float]:
        return {"spectrum_db": self._sum / self._count} if self._count else {}


def log_spectral_distance(x: Tensor, y: Tensor) -> Tensor:
    """Decibels ``(batch, channels)`` between x and y ``(batch, channels, *axes)``."""
    axes = tuple(range(2, x.dim()))
    target, other = (torch.fft.fftn(double(values), dim=axes).abs().square() for values in (x, y))
    least = FLOOR * target.amax(axes, keepdim=True).clamp(min=1e-12)
    ratio = 10 * (target.maximum(least) / other.maximum(least)).log10()
    distance: Tensor = ratio.square().mean(axes).sqrt()
    return distance
