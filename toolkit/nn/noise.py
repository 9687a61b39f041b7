"""Random numbers that a seed fixes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Numbers in (0, 1) of a tensor's shape, dtype and device, drawn on the CPU from a CPU generator: the same on every
    device."""
    tiny = torch.finfo(like.dtype).eps
    return torch.rand(like.shape, generator=generator, dtype=like.dtype).clamp(tiny, 1 - tiny).to(like.device)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers that are a function of the seed; the caller's stay where they were."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
