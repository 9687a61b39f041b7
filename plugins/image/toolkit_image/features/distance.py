"""Distances between the features of two pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from toolkit.nn.codebook import upcast
from toolkit_image.features.frozen import Frozen

SMALLEST = 1e-10
"""Added to a squared norm."""


def feature_distance(frozen: Frozen, layers: Sequence[str], ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
    """Squared differences of features of unit norm, summed over channels and layers, each channel by its head, averaged
    over positions ``(batch,)``, in at least float32 (Zhang et al. 2018, arXiv:1801.03924, eq. 1)."""
    distances = []
    for layer, one, other in zip(layers, ours, theirs, strict=True):
        squared = (_unit(upcast(one)) - _unit(upcast(other))).square()
        head = frozen.network.head(layer)
        weighted = squared / len(layers) if head is None else squared * head.view(1, -1, 1, 1)
        distances.append(weighted.sum(1).mean((1, 2)))
    return torch.stack(distances).sum(0)


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True) + SMALLEST).sqrt()
