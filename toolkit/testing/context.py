"""How the suites look at ``context``: in float64, with random weights, in chunks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)

ROOM = 7
"""Positions, beside those of the context, of an axis in whose middle nothing sees a border."""
CHUNKS = (1, 3)
"""Positions of a chunk; of the second size, the last one is shorter."""


@contextmanager
def in_float64() -> Iterator[None]:
    """What makes floats makes float64, as ``DataSpec.scale`` does of levels."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@torch.no_grad()
def randomized(part: M) -> M:
    """In float64, and no weight as it was initialized: one that starts at zero would hide what it lets through."""
    generator = torch.Generator().manual_seed(1)
    for parameter in part.double().parameters():
        parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return part


def chunks(length: int, size: int, context: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Of each chunk of ``size`` among ``length`` positions: what to read, with its context as far as there is any, and
    where the chunk stands in what was read."""
    before, after = context
    for start in range(0, length, size):
        stop, first = min(length, start + size), max(0, start - before)
        yield slice(first, min(length, stop + after)), slice(start - first, stop - first)
