"""A prediction of the bound from the data alone, before codes are sampled."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.spec import DataSpec

POOLED = 8
"""Most positions per axis that a baseline sees."""

WIDTH = 8
"""Embedding channels per number of unordered data."""

POOL: dict[int, Callable[..., Tensor]] = {
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}


class Baseline(nn.Module):
    """One number per example, by a layer of ``hidden`` tanh units over the data averaged to a coarse grid.

    Its input is the data, so its gradient reaches no other part. Unordered data is embedded first.
    """

    def __init__(self, data: DataSpec, hidden: int) -> None:
        super().__init__()
        self.data = data
        self.grid = tuple(min(POOLED, length) for length in data.axes)
        self.table = None if data.ordered else nn.Embedding(data.levels or 1, WIDTH)
        inputs = data.channels * prod(self.grid) * (1 if data.ordered else WIDTH)
        self.proj_in = nn.Linear(inputs, hidden)
        self.proj_out = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x ``(batch, channels, *axes)`` to ``(batch,)``."""
        pooled: Tensor = POOL[self.data.rank](self._features(x), self.grid)
        out: Tensor = self.proj_out(self.proj_in(pooled.flatten(1).to(self.proj_in.weight.dtype)).tanh())
        return out.squeeze(1)

    def _features(self, x: Tensor) -> Tensor:
        """``(batch, features, *axes)``."""
        if self.table is None:
            return self.data.scale(x)
        rows: Tensor = self.table(x.long())
        return rows.movedim(-1, 2).flatten(1, 2)
