"""What a frozen table may go through besides a linear map. Both start at 0, and learn what to add to it."""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.nn.attention import Block

HEADS = 4
"""Of the attention among entries."""


@final
class TableMLP(nn.Module):
    """Two linear layers with a GELU between them: each entry by itself, ``(codebook_size, dim)`` to the same."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.wide = nn.Linear(dim, hidden)
        self.narrow = nn.Linear(hidden, dim)
        _zero(self.narrow)

    def forward(self, table: Tensor) -> Tensor:
        change: Tensor = self.narrow(F.gelu(self.wide(table)))
        return change


@final
class TableAttention(nn.Module):
    """Attention among all entries, ``(codebook_size, dim)`` to the same: VQBridge (Chang et al. 2025,
    arXiv:2509.10140).

    Neighboring entries are compressed to one vector each group, these go through blocks of attention, and are expanded
    to entries again.
    """

    def __init__(self, dim: int, hidden: int, layers: int, group: int) -> None:
        super().__init__()
        if hidden % HEADS:
            raise ValueError(f"hidden={hidden}: a multiple of {HEADS}")
        self.group = group
        self.compress = nn.Linear(group * dim, hidden)
        self.blocks = nn.ModuleList(Block(hidden, HEADS) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.recover = nn.Linear(hidden, group * dim)
        _zero(self.recover)

    def forward(self, table: Tensor) -> Tensor:
        x = self.compress(table.view(1, -1, self.group * table.shape[1]))
        for block in self.blocks:
            x = block(x, causal=False)
        return self.recover(self.norm(x)).view_as(table)  # type: ignore[no-any-return]


def _zero(linear: nn.Linear) -> None:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
