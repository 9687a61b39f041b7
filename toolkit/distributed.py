"""A thin hand over torch.distributed: what parts and verbs ask of the other ranks.

On one rank, every function here does nothing.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def ranks() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is."""
    return dist.get_rank() if ranks() > 1 else 0


@torch.no_grad()
def total(*tensors: Tensor) -> None:
    """Sums each tensor over the ranks, in place, on every rank."""
    if ranks() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


@torch.no_grad()
def share(tensor: Tensor) -> Tensor:
    """Rank 0's tensor, in place of every other rank's."""
    if ranks() > 1:
        dist.broadcast(tensor, 0)
    return tensor
