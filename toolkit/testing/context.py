"""How the suites look at ``context``: with random weights, mostly in float64, in pieces of any lengths."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from random import Random
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)

ROOM = 7
"""Positions, beside those of the context, of an axis in whose middle nothing sees a border."""

CUTTINGS = 20
"""Random ways to cut a whole into pieces that a part with a context is tried with."""


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


def cuttings(t: Tensor, unit: int) -> Iterator[list[Tensor]]:
    """Ways to cut ``(batch, channels, positions, …)`` into pieces: ``unit`` positions each, three times as many with
    the last piece shorter, and twice at random, some pieces empty."""
    yield list(t.split(unit, 2))
    yield list(t.split(3 * unit, 2))
    yield from (cutting(t, seed) for seed in range(2))


def cutting(t: Tensor, seed: int) -> list[Tensor]:
    """``(batch, channels, positions, …)`` in up to nine pieces at random, some of them empty."""
    random, length = Random(seed), t.shape[2]
    places = sorted(random.choices(range(length + 1), k=5 if seed < 2 else random.randint(0, 8)))
    return [t[:, :, start:stop] for start, stop in pairwise([0, *places, length])]


def close_to(actual: Tensor, expected: Tensor) -> None:
    """Up to rounding: 1e-10 in float64, 1e-5 in float32, of the largest number."""
    share = 1e-10 if expected.dtype == torch.float64 else 1e-5
    torch.testing.assert_close(actual, expected, atol=share * float(expected.abs().max()), rtol=0)
