"""Reconstruction error."""

from __future__ import annotations

from collections.abc import Mapping
from math import log10
from typing import final

import torch
from torch import Tensor

from toolkit.device import double
from toolkit.metric import Metric
from toolkit.objective import Bound
from toolkit.spec import DataSpec

WINDOW = 11
"""Positions of SSIM's Gaussian window."""


@final
class ReconstructionMetric(Metric):
    """Error of the likelihood's mean: ``mse`` on the scale of [-1, 1], ``nmse`` (over the split's own variance),
    ``psnr`` in decibels (of the whole split's error, peak 2) and, for two and three axes, ``ssim``.

    SSIM follows Wang et al. 2004 with a Gaussian window of 11 positions, as torchmetrics computes it. Empty where the
    likelihood has no mean.
    """

    def __init__(self, data: DataSpec) -> None:
        self.data = data
        self._error = self._sum = self._squares = self._ssim = 0.0
        self._numbers = self._examples = 0.0

    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        mean = output.likelihood.mean
        if mean is None:
            return
        target, mean = double(self.data.scale(x)), double(mean)
        self._error += float((target - mean).square().sum())
        self._sum += float(target.sum())
        self._squares += float(target.square().sum())
        self._numbers += target.numel()
        self._examples += len(x)
        if self._has_ssim:
            self._ssim += float(_ssim(target.float(), mean.float()).sum())

    def compute(self) -> dict[str, float]:
        if not self._examples:
            return {}
        mse = self._error / self._numbers
        variance = self._squares / self._numbers - (self._sum / self._numbers) ** 2
        metrics = {"mse": mse, "psnr": 10 * log10(4 / mse) if mse else float("inf")}
        if variance > 0:
            metrics["nmse"] = mse / variance
        if self._has_ssim:
            metrics["ssim"] = self._ssim / self._examples
        return metrics

    def state(self) -> tuple[float, ...]:
        return self._error, self._sum, self._squares, self._ssim, self._numbers, self._examples

    def merge(self, state: tuple[float, ...]) -> None:
        sums = [mine + other for mine, other in zip(self.state(), state, strict=True)]
        self._error, self._sum, self._squares, self._ssim, self._numbers, self._examples = sums

    @property
    def _has_ssim(self) -> bool:
        return self.data.rank in (2, 3) and min(self.data.axes) >= WINDOW


def _ssim(target: Tensor, mean: Tensor) -> Tensor:
    """Structural similarity of each example ``(batch,)``."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    value = structural_similarity_index_measure(mean, target, data_range=2.0, reduction="none")
    assert isinstance(value, torch.Tensor)
    return value
