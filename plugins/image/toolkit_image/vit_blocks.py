"""What the networks of patches share: their positions, and their transformer."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from toolkit import DataSpec
from toolkit.nn.attention import Block
from toolkit.ranges import PositiveInt

Patch = Annotated[PositiveInt, Doc("pixels of a patch along both axes; must divide them.")]
Hidden = Annotated[PositiveInt, Doc("channels of the transformer; a multiple of 4, for the positions, and of heads.")]
Layers = Annotated[PositiveInt, Doc("blocks of the transformer.")]
Heads = Annotated[PositiveInt, Doc("heads of its attention.")]


class Transformer(nn.Module):
    """Pre-norm blocks that see all positions, and a last LayerNorm."""

    def __init__(self, hidden: int, layers: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(hidden, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, positions, hidden)``."""
        for block in self.blocks:
            h = block(h, causal=False)
        out: Tensor = self.norm(h)
        return out


class SinePositions(nn.Module):
    """Where a position of a grid is, in sines and cosines (Vaswani et al. 2017): half of the channels for each axis.

    Nothing is learned, so they go on where a grid is larger than those of training.
    """

    table: Tensor
    """``(positions, channels)`` of the usual grid, in raster order."""

    def __init__(self, grid: tuple[int, int], channels: int) -> None:
        super().__init__()
        if channels % 4:
            raise ValueError(f"hidden={channels}: must be a multiple of 4, for sines and cosines of two axes")
        self.grid, self.channels = grid, channels
        self.register_buffer("table", sines(grid, channels, None), persistent=False)

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """``(positions, channels)`` in raster order."""
        return self.table if grid == self.grid else sines(grid, self.channels, self.table.device)


def sines(grid: tuple[int, int], channels: int, device: torch.device | None) -> Tensor:
    """``(positions, channels)``: of rows, then of columns, with wavelengths from 2 pi to 20 000 pi."""
    waves = channels // 4
    rates = 10000.0 ** (-torch.arange(waves, device=device) / waves)
    angles = [torch.arange(length, device=device)[:, None] * rates for length in grid]
    rows, columns = (torch.cat([angle.sin(), angle.cos()], 1) for angle in angles)
    both = rows[:, None].expand(*grid, -1), columns[None].expand(*grid, -1)
    return torch.cat(both, 2).flatten(0, 1)


def patch_grid(data: DataSpec, patch: int) -> tuple[int, int]:
    """How many patches there are along both axes of an image; ValueError where they do not fill it."""
    height, width = data.axes
    if height % patch or width % patch:
        raise ValueError(f"patch={patch}: must divide both of this data's axes {data.axes}")
    return height // patch, width // patch
