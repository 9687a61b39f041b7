"""Ranks that have unequally many latents, where examples of unequal lengths are batched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from toolkit.distributed import all_gather, rank, ranks

_COUNTS: ContextVar[tuple[int, ...]] = ContextVar("latents of each rank", default=())


@contextmanager
def uneven(latents: int, device: torch.device) -> Iterator[None]:
    """While the block lasts, this rank has so many latents, and each of the others its own number; all take part."""
    if ranks() == 1:
        yield
        return
    counts = torch.cat(all_gather(torch.tensor([latents], device=device))).tolist()
    token = _COUNTS.set(tuple(counts))
    try:
        yield
    finally:
        _COUNTS.reset(token)


def rows_of_ranks(rows: int) -> list[int]:
    """How many each rank has where this one has so many: as many or, in ``uneven``, in proportion to its latents."""
    counts = _COUNTS.get()
    if not counts:
        return [rows] * ranks()
    return [rows * count // counts[rank()] for count in counts]


def weighted(mean: Tensor) -> Tensor:
    """This rank's mean over its latents, so that the mean over ranks is that over all latents."""
    counts = _COUNTS.get()
    return mean * (counts[rank()] * len(counts) / sum(counts)) if counts else mean
