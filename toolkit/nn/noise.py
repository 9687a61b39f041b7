"""Random numbers that depend on the seed only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from toolkit.device import random_kept


def uniform(like: Tensor, generator: torch.Generator | None, dtype: torch.dtype | None = None) -> Tensor:
    """Uniform numbers in (0, 1) of a tensor's shape, dtype and device; sampled on the CPU, so the same on every
    device. ``dtype``: that in which they are sampled, if it is another."""
    tiny = torch.finfo(like.dtype).eps
    sampled = torch.rand(like.shape, generator=generator, dtype=dtype or like.dtype)
    return sampled.clamp(tiny, 1 - tiny).to(like.dtype).to(like.device)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers that are a function of the seed; the caller's random state is restored."""
    with random_kept():
        torch.manual_seed(seed)
        yield
