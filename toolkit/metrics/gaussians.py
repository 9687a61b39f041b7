"""Sets of feature vectors as Gaussians, and the distance between two."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from toolkit.device import double

Sums = tuple[int, Tensor | None, Tensor | None]
"""How many vectors, their sum, and that of their products."""


@final
class Gaussian:
    """Sums of vectors in double precision, and from these mean and covariance."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Tensor | None = None
        """``(features,)``"""
        self.products: Tensor | None = None
        """``(features, features)``: of the vectors with themselves."""

    def add(self, vectors: Tensor) -> None:
        """``(n, features)``."""
        vectors = double(vectors)
        self._add(len(vectors), vectors.sum(0), vectors.mT @ vectors)

    def state(self) -> Sums:
        """On the CPU."""
        total, products = (None if t is None else t.cpu() for t in (self.total, self.products))
        return self.count, total, products

    def merge(self, state: Sums) -> None:
        count, total, products = state
        if total is not None and products is not None:
            self._add(count, total, products)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean ``(features,)`` and covariance ``(features, features)``, on the CPU; of at least two vectors."""
        assert self.total is not None
        assert self.products is not None
        mean = self.total.cpu() / self.count
        spread = self.products.cpu() - self.count * mean.outer(mean)
        return mean, spread / (self.count - 1)

    def _add(self, count: int, total: Tensor, products: Tensor) -> None:
        self.count += count
        self.total = total if self.total is None else self.total + total.to(self.total.device)
        self.products = products if self.products is None else self.products + products.to(self.products.device)


def frechet(one: Gaussian, other: Gaussian) -> float | None:
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) (Dowson and Landau 1982; Heusel et al. 2017, eq. 6); None where either
    has fewer than two vectors.

    The trace of the root is that of the symmetric (C^(1/2) C' C^(1/2))^(1/2), which has no complex eigenvalues.
    """
    if min(one.count, other.count) < 2:
        return None
    (mean, covariance), (mean2, covariance2) = one.moments(), other.moments()
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.mT
    product = root @ covariance2 @ root
    common = torch.linalg.eigvalsh((product + product.mT) / 2).clamp(min=0).sqrt().sum()
    distance = (mean - mean2).square().sum() + covariance.trace() + covariance2.trace() - 2 * common
    return max(0.0, float(distance))
