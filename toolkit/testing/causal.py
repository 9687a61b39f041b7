"""What holds of every causal trunk."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from toolkit.causal.context import Context
from toolkit.causal.network import Trunk


def reach(trunk: Trunk, grid: tuple[int, ...], position: int) -> Tensor:
    """Which positions the features of one depend on, ``(positions,)`` bool, by the gradient at random inputs."""
    weight = next(trunk.parameters())
    embedded = torch.randn(4, trunk.channels, *grid, dtype=weight.dtype, requires_grad=True)
    features = trunk(embedded, None).flatten(1, -2)[:, position]
    (gradient,) = torch.autograd.grad((features @ torch.randn(trunk.features, dtype=weight.dtype)).sum(), embedded)
    return gradient.flatten(2).ne(0).any(0).any(0)


@torch.no_grad()
def check_prefill(trunk: Trunk, batch: int, grid: Sequence[int], context: Context | None = None) -> None:
    """Checks that a prefix in one pass leaves the state that its positions leave one by one.

    That is: with a trunk in float64, all later features are equal up to 1e-10, after prefixes that end everywhere
    where something may go wrong.
    """
    positions = prod(grid)
    weight = next(trunk.parameters())
    embedded = torch.randn(batch, trunk.channels, positions, dtype=weight.dtype, generator=_generator())
    expected = _features(trunk, trunk.init(batch, grid, context), grid, embedded, 0)
    for length in _lengths(grid):
        state = trunk.init(batch, grid, context)
        trunk.prefill(state, grid, embedded[:, :, :length])
        features = _features(trunk, state, grid, embedded, length)
        for position, (one, other) in enumerate(zip(features, expected[length:], strict=True), length):
            difference = float((one - other).abs().max())
            assert difference <= 1e-10, (
                f"{type(trunk).__name__}.prefill of {length} positions of {tuple(grid)} is not a step and an append at"
                f" each: the features of position {position} differ by {difference:.1e}"
            )


def _features(trunk: Trunk, state: object, grid: Sequence[int], embedded: Tensor, start: int) -> list[Tensor]:
    """Features ``(batch, features)`` of every position from ``start`` on, by steps."""
    features = []
    for index in range(start, prod(grid)):
        position = torch.tensor([index])
        features.append(trunk.step(state, trunk.graph_id(grid, index), position).clone())
        trunk.append(state, position, embedded[:, :, index])
    return features


def _lengths(grid: Sequence[int]) -> list[int]:
    """Nothing, one position, a part of a row, whole rows and planes with and without one more, all but one, all."""
    slabs = {prod(grid[axis:]) for axis in range(1, len(grid) + 1)}
    lengths = {0, 1, grid[-1] // 2, *slabs, *(size + 1 for size in slabs), prod(grid) // 2 + 1, prod(grid) - 1}
    return sorted(length for length in lengths | {prod(grid)} if 0 <= length <= prod(grid))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
