"""Stages of which an example may use only the first ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def used_stages(z: Tensor, stages: int, dropout: float) -> Tensor:
    """How many stages each example uses, ``(batch,)``: all but a share ``dropout`` use all, those n, uniform in
    1..stages."""
    whole = torch.full((z.shape[0],), stages, device=z.device)
    if dropout == 0:
        return whole
    some = torch.randint_like(whole, 1, stages + 1)
    return torch.where(torch.rand(z.shape[0], device=z.device) < dropout, some, whole)


def total(parts: Sequence[Tensor], used: Tensor) -> Tensor:
    """The sum over stages of ``(batch, …)``, of each example over the ``used`` ``(batch,)`` first ones."""
    stages = torch.stack(list(parts))
    order = torch.arange(len(parts), device=used.device)
    counted = (used > order[:, None]).view(*stages.shape[:2], *[1] * (stages.dim() - 2))
    return (stages * counted).sum(0)


def broadcast(per_example: Tensor, like: Tensor) -> Tensor:
    """``(batch,)``, to be broadcast against ``(batch, …)``."""
    return per_example.view(-1, *[1] * (like.dim() - 1))
