"""Attention over the positions of a grid."""

from __future__ import annotations

from math import sqrt
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.conditioner import Tokens
from toolkit.errors import ToolkitError
from toolkit.nn.rotary import rotate


class Block(nn.Module):
    """Pre-norm attention of several heads, then two linear layers with a GELU between them; both are residual."""

    def __init__(self, hidden: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if hidden % heads:
            raise ValueError(f"hidden={hidden} heads={heads}: hidden must be a multiple of heads")
        self.hidden, self.heads = hidden, heads
        self.before_attention = nn.LayerNorm(hidden)
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)
        self.before_mlp = nn.LayerNorm(hidden)
        self.wide = nn.Linear(hidden, 4 * hidden)
        self.narrow = nn.Linear(4 * hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        for linear in self.maps:
            nn.init.normal_(linear.weight, std=1 / sqrt(2 * linear.in_features))
            nn.init.zeros_(linear.bias)

    @property
    def maps(self) -> tuple[nn.Linear, nn.Linear, nn.Linear, nn.Linear]:
        """The linear layers, in the order of use."""
        return self.qkv, self.out, self.wide, self.narrow

    def forward(self, x: Tensor, causal: bool, seen: Tensor | None = None, rotation: Tensor | None = None) -> Tensor:
        """x ``(batch, positions, hidden)``; ``causal``: no position attends to a later one.

        ``seen`` ``(positions, positions)`` bool, in place of causal: which positions each attends to. ``rotation``:
        how queries and keys are turned, see ``toolkit.nn.rotary``.
        """
        query, key, value = self._qkv(x)
        query, key = rotate(query, rotation), rotate(key, rotation)
        return self._rest(x, F.scaled_dot_product_attention(query, key, value, seen, is_causal=causal))

    def extend(self, x: Tensor, keys: Tensor, values: Tensor, start: int) -> Tensor:
        """The same at positions from ``start`` on, which attend to one another and to all before them.

        Their keys and values are added to those before, ``(batch, heads, positions, channels of a head)``, in place.
        """
        query, key, value = self._qkv(x)
        end = start + x.shape[1]
        keys[:, :, start:end], values[:, :, start:end] = key, value
        return self._rest(x, F.scaled_dot_product_attention(query, keys[:, :, :end], values[:, :, :end]))

    def _qkv(self, x: Tensor) -> tuple[Tensor, ...]:
        """Each ``(batch, heads, positions, channels of a head)``."""
        qkv = self.qkv(self.before_attention(x)).unflatten(2, (3, self.heads, -1))
        return cast(tuple[Tensor, ...], qkv.permute(2, 0, 3, 1, 4).unbind(0))

    def _rest(self, x: Tensor, read: Tensor) -> Tensor:
        """What follows the attention."""
        x = x + self.dropout(self.out(read.transpose(1, 2).flatten(2)))
        out: Tensor = x + self.dropout(self.narrow(F.gelu(self.wide(self.before_mlp(x)))))
        return out


class CrossAttention(nn.Module):
    """Pre-norm attention of several heads from a grid's positions to the vectors of a text; residual."""

    def __init__(self, hidden: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(hidden)
        self.query = nn.Linear(hidden, hidden)
        self.key_value = nn.Linear(hidden, 2 * hidden)
        self.out = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        for linear in (self.query, self.key_value, self.out):
            nn.init.normal_(linear.weight, std=1 / sqrt(2 * linear.in_features))
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        """x ``(batch, positions, hidden)``; so many channels have the vectors."""
        key, value = self.read(tokens.vectors)
        return self.attend(x, key, value, tokens.mask[:, None, None])

    def read(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values ``(batch, heads, tokens, channels of a head)``, the same for all positions."""
        both = self.key_value(vectors).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return both[0], both[1]

    def attend(self, x: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
        """``forward`` with keys and values that were read before; ``seen`` ``(batch, 1, 1, tokens)`` bool."""
        query = self.query(self.norm(x)).unflatten(2, (self.heads, -1)).transpose(1, 2)
        read = F.scaled_dot_product_attention(query, key, value, seen)
        out: Tensor = x + self.dropout(self.out(read.transpose(1, 2).flatten(2)))
        return out


class GridPositions(nn.Module):
    """An embedding of every position of a grid: the sum of one table per axis."""

    def __init__(self, grid: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.tables = nn.ParameterList(torch.randn(size, channels) / sqrt(2 * len(grid)) for size in grid)

    def forward(self, grid: tuple[int, ...]) -> Tensor:
        """``(positions, channels)`` in raster order. ToolkitError where the grid is larger than the tables."""
        largest = tuple(len(table) for table in self.tables)
        if len(grid) != len(largest) or any(size > most for size, most in zip(grid, largest, strict=True)):
            raise ToolkitError(f"a grid of {tuple(grid)}: this network has positions up to {largest}")
        positions = torch.zeros((), device=self.tables[0].device)
        for axis, (size, table) in enumerate(zip(grid, self.tables, strict=True)):
            later = [1] * (len(grid) - 1 - axis)
            positions = positions + table[:size].reshape(*[1] * axis, size, *later, -1)
        return positions.expand(*grid, -1).flatten(0, -2)
