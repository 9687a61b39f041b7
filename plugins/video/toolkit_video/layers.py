"""Blocks of ``video_conv``: convolutions over time, height and width, causal in time or not, and axial attention.

A causal convolution is padded in time only on the side of the past; a transposed one is cut only on the side of the
future. So the output at a step depends on the input up to that step, rounded up to a stride.
"""

from __future__ import annotations

from math import prod
from typing import TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.nn.context import reads
from toolkit.nn.conv import started
from toolkit.nn.residual import ResidualBlock

Triple: TypeAlias = tuple[int, int, int]
"""Of time, height and width."""


class Conv(nn.Module):
    """A convolution from ``n`` positions of each axis to exactly ``n / stride``; kernel minus stride is even."""

    def __init__(self, inputs: int, outputs: int, kernel: Triple, stride: Triple = (1, 1, 1), *, causal: bool) -> None:
        super().__init__()
        time, height, width = (size - step for size, step in zip(kernel, stride, strict=True))
        self.past = time if causal else 0
        padding = (0 if causal else time // 2, height // 2, width // 2)
        self.conv = started(nn.Conv3d(inputs, outputs, kernel, stride=stride, padding=padding))

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it."""
        before, after = reads([self.conv], first, last)
        return before - self.past, after - self.past

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, inputs, time, height, width)``."""
        output: Tensor = self.conv(F.pad(h, (0, 0, 0, 0, self.past, 0)) if self.past else h)
        return output


class Up(nn.Module):
    """A transposed convolution from ``n`` positions of each axis to exactly ``n * stride``."""

    def __init__(self, inputs: int, outputs: int, stride: Triple, *, causal: bool) -> None:
        super().__init__()
        kernel = window(stride)
        time, height, width = (size - step for size, step in zip(kernel, stride, strict=True))
        self.future = time if causal else 0
        padding = (0 if causal else time // 2, height // 2, width // 2)
        layer = nn.ConvTranspose3d(inputs, outputs, kernel, stride=stride, padding=padding)
        self.conv = started(layer, prod(stride))

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it: only the end is cut."""
        return reads([self.conv], first, last)

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, inputs, time, height, width)``."""
        output: Tensor = self.conv(h)
        return output[:, :, : output.shape[2] - self.future]


def down(inputs: int, outputs: int, stride: Triple, *, causal: bool) -> Conv:
    """A strided convolution, its window about twice the stride."""
    return Conv(inputs, outputs, window(stride), stride, causal=causal)


class AxialAttention(nn.Module):
    """Attention along time, along height and along width, each position by its own line, summed and added to the input
    (Ho et al. 2019, arXiv:1912.12180, as in VideoGPT, Yan et al. 2021, arXiv:2104.10157)."""

    def __init__(self, channels: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ValueError(f"hidden={channels} heads={heads}: the first a multiple of the second")
        self.heads, self.causal = heads, causal
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.ModuleList(nn.Linear(channels, 3 * channels) for _ in range(3))
        self.out = nn.ModuleList(nn.Linear(channels, channels) for _ in range(3))

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, channels, time, height, width)``."""
        x = self.norm(h.movedim(1, -1))
        for axis, (qkv, out) in enumerate(zip(self.qkv, self.out, strict=True)):
            lines = x.movedim(axis + 1, -2)
            parts = qkv(lines).unflatten(-1, (3, self.heads, -1)).movedim(-3, 0).transpose(-3, -2)
            query, key, value = parts.flatten(1, 3)
            read = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal and axis == 0)
            change = out(read.transpose(1, 2).flatten(2)).view_as(lines).movedim(-2, axis + 1)
            h = h + change.movedim(-1, 1)
        return h


def residual_stack(channels: int, hidden: int, blocks: int, heads: int, *, causal: bool) -> nn.Sequential:
    """``blocks`` residual blocks, each followed by attention if there are heads, and a final ReLU."""
    layers: list[nn.Module] = []
    for _ in range(blocks):
        wide = Conv(channels, hidden, (3, 3, 3), causal=causal)
        layers.append(ResidualBlock(wide, Conv(hidden, channels, (1, 1, 1), causal=causal)))
        if heads:
            layers.append(AxialAttention(channels, heads, causal=causal))
    return nn.Sequential(*layers, nn.ReLU())


def window(stride: Triple) -> Triple:
    """About twice the stride along each axis, so that lengths divide exactly: 3 at 1, 4 at 2, 7 at 3."""
    time, height, width = (2 * step + step % 2 for step in stride)
    return time, height, width


def check_strides(strides: tuple[Triple, ...]) -> None:
    """ValueError if a step of a stride is below 1."""
    if any(step < 1 for stride in strides for step in stride):
        raise ValueError(f"strides={[list(stride) for stride in strides]}: each is 1 or more along time, height, width")
