"""What a choice costs under a softmax, in tiles that stay in a core's cache."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses import FakeTensor

from toolkit.device import in_float32
from toolkit.nn.codebook import upcast
from toolkit.nn.lookup import TILE

LARGE = 1 << 23
"""Numbers of a tensor, 32 MiB of them, for which a CPU's memory comes fresh from the system each time: to touch it once
takes longer than several passes over it do afterwards."""


def cross_entropy(logits: Tensor, chosen: Tensor) -> Tensor:
    """Nats ``-log softmax(logits)[chosen]`` of each choice ``(batch, *rest)``, in at least float32.

    logits ``(batch, options, *rest)``, chosen ``(batch, *rest)``, integers from 0 to options - 1.

    It is torch's own for few logits, on a GPU, where a compiler fuses it, and of fake tensors, which stand for any
    device. Of many on a CPU that one copies those whose channels are last in memory, as convolutions over looked-up
    entries give them, back and forth, and fills three tensors of their size on the way. Here they are read twice, as
    they lie, and their gradient is written once.
    """
    logits, chosen = upcast(logits), chosen.long()
    few = logits.numel() < (LARGE if logits.is_contiguous() else TILE)
    elsewhere = logits.device.type != "cpu" or isinstance(logits, FakeTensor) or torch.compiler.is_compiling()
    if few or elsewhere or chosen.shape != logits.shape[:1] + logits.shape[2:]:  # which torch refuses
        return F.cross_entropy(logits, chosen, reduction="none")
    nats: Tensor = _CrossEntropy.apply(logits, chosen.unsqueeze(1))  # type: ignore[no-untyped-call]
    return nats.squeeze(1)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, chosen: Tensor) -> Tensor:
        rows = _rows(logits)
        room = torch.empty_like(logits[:rows])
        with in_float32(logits.device):
            parts = [_cost(*tile, room) for tile in zip(logits.split(rows), chosen.split(rows), strict=True)]
            nats, largest, total = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        ctx.save_for_backward(logits, chosen, largest, total)
        return nats

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        logits, chosen, largest, total = ctx.saved_tensors
        (g,) = upstream
        if torch.is_grad_enabled():  # of this gradient one is to be taken, too
            nats = F.cross_entropy(logits, chosen.squeeze(1), reduction="none").unsqueeze(1)
            return torch.autograd.grad(nats, logits, g, create_graph=True)[0], None
        rows, gradient = _rows(logits), torch.empty_like(logits)
        tensors = (gradient, logits, largest, g / total, chosen, -g)
        for out, some, top, scale, of, cost in zip(*(t.split(rows) for t in tensors), strict=True):
            torch.sub(some, top, out=out).exp_().mul_(scale).scatter_add_(1, of, cost)
        return gradient, None


def _rows(logits: Tensor) -> int:
    """Of a tile."""
    return max(1, TILE // max(1, prod(logits.shape[1:])))


def _cost(logits: Tensor, chosen: Tensor, room: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Nats, the largest logit, and the sum of exponentials of what the others are below it: ``(batch, 1, *rest)``.

    ``room``: for numbers on the way, at least as many as there are logits.
    """
    largest = _largest(logits)
    total = torch.sub(logits, largest, out=room[: len(logits)]).exp_().sum(1, keepdim=True)
    return total.log() + (largest - logits.gather(1, chosen)), largest, total


def _largest(logits: Tensor) -> Tensor:
    """``amax(1, keepdim=True)``, half against half: where axis 1 is not the last in memory, torch's takes as long as
    all else together."""
    while (size := logits.shape[1]) > 1:
        half = (size + 1) // 2
        logits = torch.maximum(logits[:, :half], logits[:, size - half :])
    return logits
