"""Random numbers that a seed fixes on every device."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Numbers in (0, 1) of a tensor's shape, dtype and device, drawn on the CPU from a CPU generator."""
    tiny = torch.finfo(like.dtype).eps
    return torch.rand(like.shape, generator=generator, dtype=like.dtype).clamp(tiny, 1 - tiny).to(like.device)
