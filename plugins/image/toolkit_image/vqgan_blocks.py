"""The blocks that VQGAN's encoder and decoder are made of."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from toolkit.ranges import NonNegativeInt, PositiveInt

Hidden = Annotated[PositiveInt, Doc("channels at the data's own size; of the other levels, a multiple.")]
Multipliers = Annotated[
    tuple[PositiveInt, ...],
    Doc("channels by level, as multiples of hidden, from the data down; each level but the first halves both axes."),
]
ResidualBlocks = Annotated[PositiveInt, Doc("a level of the encoder; the decoder's have one more.")]
AttentionLevels = Annotated[
    tuple[NonNegativeInt, ...],
    Doc("levels that attend after every block, counted from the latents up: 0 is the lowest grid."),
]
MiddleAttention = Annotated[bool, Doc("attend on the lowest grid between two more blocks, next to the latents.")]
Bottleneck = Annotated[PositiveInt, Doc("channels beside the 1x1 convolution to or from the latents.")]
Groups = Annotated[PositiveInt, Doc("of every GroupNorm; divides the channels of every level.")]


class ResidualBlock(nn.Module):
    """Twice GroupNorm, swish and a 3x3 convolution, added to the input, which a 1x1 fits where the channels differ."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm_in = group_norm(groups, inputs)
        self.conv_in = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm_out = group_norm(groups, outputs)
        self.conv_out = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, inputs, height, width)``."""
        change = self.conv_in(F.silu(self.norm_in(h)))
        change = self.conv_out(F.silu(self.norm_out(change)))
        out: Tensor = change + (h if self.shortcut is None else self.shortcut(h))
        return out


class Attention(nn.Module):
    """GroupNorm and attention of one head over all positions, added to the input."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = group_norm(groups, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, channels, height, width)``."""
        positions = self.norm(h).flatten(2).transpose(1, 2)
        query, key, value = self.qkv(positions).unsqueeze(1).chunk(3, 3)
        read = F.scaled_dot_product_attention(query, key, value).squeeze(1)
        change: Tensor = self.out(read).transpose(1, 2).unflatten(2, h.shape[2:])
        return h + change


class Down(nn.Module):
    """Half of both axes: a 3x3 convolution of stride 2 that pads the far ends alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, channels, height, width)``."""
        half: Tensor = self.conv(F.pad(h, (0, 1, 0, 1)))
        return half


class Up(nn.Module):
    """Twice both axes: every position four times, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, channels, height, width)``."""
        twice: Tensor = self.conv(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return twice


class Level(nn.Module):
    """The blocks on one grid, attention after each of them where the level attends, and the way to the next grid."""

    def __init__(
        self, inputs: int, outputs: int, blocks: int, groups: int, attends: bool, resize: type[Down | Up] | None
    ) -> None:
        super().__init__()
        widths = [inputs, *[outputs] * blocks]
        self.blocks = nn.ModuleList(ResidualBlock(*pair, groups) for pair in pairwise(widths))
        self.attention = nn.ModuleList(Attention(outputs, groups) for _ in range(blocks if attends else 0))
        self.resize = None if resize is None else resize(outputs)

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, inputs, height, width)``."""
        for index, block in enumerate(self.blocks):
            h = block(h)
            if self.attention:
                h = self.attention[index](h)
        return h if self.resize is None else self.resize(h)


class Middle(nn.Module):
    """Two blocks on the lowest grid, with attention between them."""

    def __init__(self, channels: int, groups: int, attends: bool) -> None:
        super().__init__()
        self.first = ResidualBlock(channels, channels, groups)
        self.attention = Attention(channels, groups) if attends else None
        self.last = ResidualBlock(channels, channels, groups)

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, channels, height, width)``."""
        h = self.first(h)
        out: Tensor = self.last(h if self.attention is None else self.attention(h))
        return out


def down_levels(widths: Sequence[int], blocks: int, groups: int, attention: Sequence[int]) -> nn.Sequential:
    """Levels from the widest grid to the lowest, whose number is 0; ``widths``: channels before and after each."""
    numbered = zip(reversed(range(len(widths) - 1)), pairwise(widths), strict=True)
    levels = [Level(*pair, blocks, groups, n in attention, Down if n else None) for n, pair in numbered]
    return nn.Sequential(*levels)


def up_levels(widths: Sequence[int], blocks: int, groups: int, attention: Sequence[int]) -> nn.Sequential:
    """Levels from the lowest grid, whose number is 0, to the widest; ``widths``: channels before and after each."""
    last = len(widths) - 2
    numbered = enumerate(pairwise(widths))
    levels = [Level(*pair, blocks, groups, n in attention, Up if n < last else None) for n, pair in numbered]
    return nn.Sequential(*levels)


def group_norm(groups: int, channels: int) -> nn.GroupNorm:
    """A GroupNorm with VQGAN's epsilon."""
    return nn.GroupNorm(groups, channels, eps=1e-6)


def check_levels(hidden: int, multipliers: tuple[int, ...], attention: tuple[int, ...], groups: int) -> None:
    """ValueError where no such levels can be."""
    if not multipliers or min(multipliers) < 1:
        raise ValueError(f"multipliers={list(multipliers)}: at least one, and each at least 1")
    if any(not 0 <= level < len(multipliers) for level in attention):
        levels = f"multipliers has {len(multipliers)} levels, counted from 0, the lowest grid"
        raise ValueError(f"attention={list(attention)}: {levels}")
    if hidden % groups:
        raise ValueError(f"hidden={hidden} groups={groups}: hidden must be a multiple of groups")
