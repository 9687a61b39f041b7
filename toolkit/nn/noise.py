"""Random numbers that depend on the seed only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform numbers in (0, 1) of a tensor's shape, dtype and device; sampled on the CPU, so the same on every
    device."""
    tiny = torch.finfo(like.dtype).eps
    return torch.rand(like.shape, generator=generator, dtype=like.dtype).clamp(tiny, 1 - tiny).to(like.device)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers that are a function of the seed; the caller's random state is restored."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
