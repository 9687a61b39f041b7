"""Axes that a part does not see, folded into the batch."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import final

import torch
from torch import Tensor

from toolkit.entropy import EntropyCoder
from toolkit.likelihood import Distribution


def fold(t: Tensor, rank: int | None) -> tuple[Tensor, tuple[int, ...]]:
    """``(batch, channel, *extra, *axes)`` to ``(batch * extra, channel, *axes)``; also returns extra."""
    if rank is None or t.dim() - 2 <= rank:
        return t, ()
    extra = tuple(t.shape[2 : t.dim() - rank])
    return t.movedim(1, -rank - 1).flatten(0, len(extra)), extra


def unfold(t: Tensor, extra: tuple[int, ...]) -> Tensor:
    """The inverse of ``fold``."""
    return t.unflatten(0, (-1, *extra)).movedim(len(extra) + 1, 1) if extra else t


@final
class FoldedDistribution(Distribution):
    """Distributions of slices as one of the whole: extra axes move from the batch into the example."""

    def __init__(self, base: Distribution, rank: int | None, extra: tuple[int, ...]) -> None:
        self.base, self.rank, self.extra = base, rank, extra
        self.shape = (base.shape[0], *extra, *base.shape[1:])
        self.mean_is_free = base.mean_is_free
        self.density = base.density
        self.given = base.mean if base.given is None and base.mean_is_free else base.given

    @property
    def mean(self) -> Tensor | None:
        mean = self.base.mean
        return None if mean is None else unfold(mean, self.extra)

    def log_prob(self, x: Tensor) -> Tensor:
        parts: Tensor = self.base.log_prob(fold(x, self.rank)[0]).unflatten(0, (-1, *self.extra))
        return parts.flatten(1).sum(1)

    def log_prob_by_position(self, x: Tensor) -> Tensor:
        parts: Tensor = self.base.log_prob_by_position(fold(x, self.rank)[0]).unsqueeze(1)
        return unfold(parts, self.extra).squeeze(1)

    def sample(
        self,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        return unfold(self.base.sample(generator, temperature, progress), self.extra)

    def entropy_code(self, coder: EntropyCoder, x: Tensor | None = None) -> Tensor:
        slices = _Slices(coder, prod(self.extra))
        return unfold(self.base.entropy_code(slices, None if x is None else fold(x, self.rank)[0]), self.extra)


@final
class _Slices(EntropyCoder):
    """An entropy coder of whole examples for their slices, all of which are written or read side by side."""

    def __init__(self, coder: EntropyCoder, slices: int) -> None:
        self.coder, self.slices = coder, slices

    def code(self, probs: Tensor, values: Tensor | None) -> Tensor:
        whole = probs.reshape(-1, self.slices * probs.shape[1], probs.shape[2])
        given = None if values is None else values.reshape(whole.shape[:2])
        return self.coder.code(whole, given).reshape(probs.shape[:2])

    def code_uniform(self, size: int, like: Tensor, values: Tensor | None) -> Tensor:
        whole = like.reshape(-1, self.slices * like.shape[1])
        given = None if values is None else values.reshape(whole.shape)
        return self.coder.code_uniform(size, whole, given).reshape(like.shape)
