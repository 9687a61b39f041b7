"""LPIPS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import torch
from torch import Tensor

from toolkit import Bound, DataSpec, Metric, ToolkitError
from toolkit.device import double
from toolkit.metric import Direction
from toolkit.ranges import PositiveInt
from toolkit_image.features.distance import feature_distance
from toolkit_image.features.frozen import Frozen
from toolkit_image.features.pictures import Pictures


@final
class LpipsMetric(Metric):
    """``lpips``: the mean over examples of the distance between the likelihood's mean and x that agrees best with
    people's judgement (Zhang et al. 2018, arXiv:1801.03924): LPIPS 0.1 over VGG-16. Empty where there is no mean.

    Args:
        weights: torchvision's file of VGG-16, or one that has LPIPS' heads beside it; null: the one in torch's cache.
        size: pixels that the shorter side is resized to; null: pictures as they are.
    """

    directions: ClassVar[Mapping[str, Direction]] = {"lpips": "min"}

    def __init__(self, data: DataSpec, *, weights: str | None = None, size: PositiveInt | None = None) -> None:
        self.data, self.pictures, self.frozen = data, Pictures(data, size), Frozen.load("vgg", weights)
        self.layers = self.frozen.chosen(())
        if self.frozen.network.head(self.layers[0]) is None:
            raise ToolkitError("metric=image_lpips needs LPIPS' heads, which the package lpips has: pip install lpips")
        if min(self.pictures.sides) < self.frozen.network.smallest:
            raise ValueError(f"size={size}: pictures of {self.frozen.network.smallest} pixels or more: give size=64")
        self._sum, self._count = 0.0, 0

    @torch.no_grad()
    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        mean = output.likelihood.mean
        if mean is None:
            return
        frozen, pictures = self.frozen.to(x.device), self.pictures.to(x.device)
        ours, theirs = (frozen(pictures(scaled.float()), self.layers) for scaled in (mean, self.data.scale(x)))
        self._sum += float(double(feature_distance(frozen, self.layers, ours, theirs)).sum())
        self._count += len(x)

    def compute(self) -> dict[str, float]:
        return {"lpips": self._sum / self._count} if self._count else {}

    def state(self) -> tuple[float, int]:
        return self._sum, self._count

    def merge(self, state: tuple[float, int]) -> None:
        self._sum, self._count = self._sum + state[0], self._count + state[1]
