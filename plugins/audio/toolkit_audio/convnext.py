"""Blocks of ConvNeXt (Liu et al. 2022, arXiv:2201.03545) over time, as in Vocos (Siuzdak 2023)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.nn.context import reads

KERNEL = 7
"""Of all convolutions that see neighbors."""
EPS = 1e-6
"""Added to a variance before it divides."""


class ChannelNorm(nn.LayerNorm):
    """The channels of each position of ``(batch, channels, positions)`` normalized, then scaled and shifted."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPS)

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h.transpose(1, 2)).transpose(1, 2)


class ConvNeXt(nn.Module):
    """A convolution of every channel by itself, a norm, and two maps with a GELU between them, which are scaled and
    added to the input."""

    def __init__(self, channels: int, wide: int, scale: float) -> None:
        """``wide``: channels between the maps. ``scale``: at which what is added begins, in every channel."""
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, KERNEL, padding=KERNEL // 2, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=EPS)
        self.wide, self.narrow = nn.Linear(channels, wide), nn.Linear(wide, channels)
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it."""
        return reads([self.depthwise], first, last)

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, channels, positions)``."""
        change = self.norm(self.depthwise(h).transpose(1, 2))
        change = self.scale * self.narrow(F.gelu(self.wide(change)))
        output: Tensor = h + change.transpose(1, 2)
        return output
