"""Reconstruction error."""

from __future__ import annotations

from collections.abc import Mapping
from math import log10
from typing import ClassVar, final

import torch
from torch import Tensor

from toolkit.device import double
from toolkit.metric import Direction, Metric
from toolkit.objective import Bound
from toolkit.spec import DataSpec

WINDOW = 11
"""Positions of SSIM's Gaussian window."""


@final
class SquaredError:
    """Sums of data's error on the scale of [-1, 1], of any number of examples of any shape."""

    def __init__(self) -> None:
        self.error = self.total = self.squares = self.numbers = 0.0

    def add(self, target: Tensor, mean: Tensor) -> None:
        """Scaled data, and what stands for it."""
        target, mean = double(target), double(mean)
        self.error += float((target - mean).square().sum())
        self.total += float(target.sum())
        self.squares += float(target.square().sum())
        self.numbers += target.numel()

    def compute(self) -> dict[str, float]:
        """``mse``, ``psnr`` in decibels (peak 2) and, unless all data is one value, ``nmse``, over its variance."""
        mse = self.error / self.numbers
        variance = self.squares / self.numbers - (self.total / self.numbers) ** 2
        metrics = {"mse": mse, "psnr": 10 * log10(4 / mse) if mse else float("inf")}
        if variance > 0:
            metrics["nmse"] = mse / variance
        return metrics


@final
class ReconstructionMetric(Metric):
    """Error of the likelihood's mean: ``mse`` on the scale of [-1, 1], ``nmse`` (over the split's own variance),
    ``psnr`` in decibels (of the whole split's error, peak 2) and, for two and three axes, ``ssim``.

    SSIM follows Wang et al. 2004 with a Gaussian window of 11 positions, as torchmetrics computes it. Empty where the
    likelihood has no mean.
    """

    directions: ClassVar[Mapping[str, Direction]] = {"mse": "min", "nmse": "min", "psnr": "max", "ssim": "max"}

    def __init__(self, data: DataSpec) -> None:
        self.data = data
        self._squared = SquaredError()
        self._ssim = self._examples = 0.0

    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        mean = output.likelihood.mean
        if mean is None:
            return
        target = self.data.scale(x)
        self._squared.add(target, mean)
        self._examples += len(x)
        if self._has_ssim:
            self._ssim += float(_ssim(target.float(), mean.float()).sum())

    def compute(self) -> dict[str, float]:
        if not self._examples:
            return {}
        metrics = self._squared.compute()
        if self._has_ssim:
            metrics["ssim"] = self._ssim / self._examples
        return metrics

    def state(self) -> tuple[float, ...]:
        own = self._squared
        return own.error, own.total, own.squares, self._ssim, own.numbers, self._examples

    def merge(self, state: tuple[float, ...]) -> None:
        sums = [mine + other for mine, other in zip(self.state(), state, strict=True)]
        own = self._squared
        own.error, own.total, own.squares, self._ssim, own.numbers, self._examples = sums

    @property
    def _has_ssim(self) -> bool:
        return self.data.rank in (2, 3) and min(self.data.axes) >= WINDOW


def _ssim(target: Tensor, mean: Tensor) -> Tensor:
    """Structural similarity of each example ``(batch,)``."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    value = structural_similarity_index_measure(mean, target, data_range=2.0, reduction="none")
    assert isinstance(value, torch.Tensor)
    return value
