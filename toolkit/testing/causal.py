"""What a position of a causal trunk depends on."""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.causal.network import Trunk


def reach(trunk: Trunk, grid: tuple[int, ...], position: int) -> Tensor:
    """Which positions the features of one depend on, ``(positions,)`` bool, by the gradient at random inputs."""
    weight = next(trunk.parameters())
    embedded = torch.randn(4, trunk.channels, *grid, dtype=weight.dtype, requires_grad=True)
    features = trunk(embedded, None).flatten(1, -2)[:, position]
    (gradient,) = torch.autograd.grad((features @ torch.randn(trunk.features, dtype=weight.dtype)).sum(), embedded)
    return gradient.flatten(2).ne(0).any(0).any(0)
