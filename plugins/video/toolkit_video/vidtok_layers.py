"""Blocks of ``video_vidtok``: convolutions over space, over time and over both, and attention inside a frame.

All take and give films ``(batch, time, height, width, channels)``, channels last: so each is a view for a convolution,
for a norm over the channels and for a linear map. In time they are causal, and before its first frame a film stands
still: every layer repeats the first position of what it is given. So a film of one frame is any number of copies of it.
The first version that was published has zeros there instead.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from toolkit.nn.context import reads
from toolkit.nn.conv import started

EPSILON = 1e-6
"""Added to the variance by the norms, as published."""

Padding = Annotated[
    Literal["still", "zeros"],
    Doc("what layers see before a film's first frame: copies of it, as VidTok 1.1 has it, or zeros, as 1.0."),
]


class SpaceConv(nn.Module):
    """A 3x3 convolution of every frame by itself."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = started(nn.Conv2d(inputs, outputs, 3, padding=1))

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it."""
        return first, last

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, time, height, width, channels)``."""
        return in_frames(self.conv, h)


class TimeConv(nn.Module):
    """A convolution of kernel 3 of every pixel's course in time by itself."""

    def __init__(self, inputs: int, outputs: int, *, padding: Padding) -> None:
        super().__init__()
        self.padding = padding
        self.conv = started(nn.Conv1d(inputs, outputs, 3))

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it."""
        return first - 2, last

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, time, height, width, channels)``."""
        height = h.shape[2]
        courses = channels_first(padded(h, 2, self.padding).flatten(2, 3))
        # pixels are columns of a picture whose rows are frames: no copy, unlike one course after the other
        out = F.conv2d(courses, self.conv.weight.unsqueeze(-1), self.conv.bias)  # type: ignore[arg-type, operator]
        pixels: Tensor = out.movedim(1, -1).unflatten(2, (height, -1))
        return pixels


class FilmConv(nn.Module):
    """A 3x3x3 convolution over time and space, of every frame or of every ``stride``-th."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, *, padding: Padding) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        self.conv = started(nn.Conv3d(inputs, outputs, 3, stride=(stride, 1, 1), padding=(0, 1, 1)))

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it: three positions, the last of which is the last of a stride."""
        return (first + 1) * self.stride - 3, (last + 1) * self.stride - 1

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, time, height, width, channels)``."""
        out: Tensor = self.conv(channels_first(padded(h, 3 - self.stride, self.padding)))
        return out.movedim(1, -1)


class ResBlock(nn.Module):
    """Norm, SiLU, convolution, twice, added to the input or to a linear map of it."""

    def __init__(self, inputs: int, outputs: int, conv: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(inputs, eps=EPSILON)
        self.conv1 = conv(inputs, outputs)
        self.norm2 = nn.LayerNorm(outputs, eps=EPSILON)
        self.conv2 = conv(outputs, outputs)
        self.shortcut = nn.Linear(inputs, outputs) if inputs != outputs else None

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it; the input itself is among what the convolutions read."""
        return reads([self.conv1, self.conv2], first, last)

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, time, height, width, channels)``."""
        change: Tensor = self.conv1(F.silu(self.norm1(h)))
        change = self.conv2(F.silu(self.norm2(change)))
        return change + (h if self.shortcut is None else self.shortcut(h))


class FrameAttention(nn.Module):
    """Attention of one head among the positions of a frame, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it."""
        return first, last

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, time, height, width, channels)``."""
        positions = self.qkv(self.norm(h)).flatten(2, 3)
        query, key, value = positions.flatten(0, 1).unsqueeze(1).chunk(3, -1)
        read: Tensor = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.out(read.view(h.shape))
        return h + out


def in_turns(inputs: int, outputs: int, count: int, padding: Padding) -> list[nn.Module]:
    """So many blocks over space, each followed by one over time."""
    layers, over_time = list[nn.Module](), partial(TimeConv, padding=padding)
    for i in range(count):
        layers += [ResBlock(outputs if i else inputs, outputs, SpaceConv), ResBlock(outputs, outputs, over_time)]
    return layers


def middle(channels: int, padding: Padding) -> nn.Sequential:
    """What stands at the smallest grid: a block over time and space, attention, and another such block."""
    blocks = [ResBlock(channels, channels, partial(FilmConv, padding=padding)) for _ in range(2)]
    return nn.Sequential(blocks[0], FrameAttention(channels), blocks[1])


class Head(nn.Module):
    """Norm, SiLU, and a convolution over time and space to the outputs."""

    def __init__(self, inputs: int, outputs: int, padding: Padding) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inputs, eps=EPSILON)
        self.conv = FilmConv(inputs, outputs, padding=padding)

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it."""
        return self.conv.reads(first, last)

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, time, height, width, channels)``."""
        out: Tensor = self.conv(F.silu(self.norm(h)))
        return out


def channels_first(h: Tensor) -> Tensor:
    """As convolutions take it: a view, but on a CPU, where gradients are taken, a copy. From a view these take almost
    twice as long there, where the copy costs little."""
    view = h.movedim(-1, 1)
    return view.contiguous() if torch.is_grad_enabled() and h.is_cpu else view


def padded(h: Tensor, count: int, padding: Padding) -> Tensor:
    """So many positions before a film."""
    return still(h, count) if padding == "still" else F.pad(h, (0, 0, 0, 0, 0, 0, count, 0))


def still(h: Tensor, count: int) -> Tensor:
    """So many copies of the first frame before a film."""
    return torch.cat([h[:, :1].expand(-1, count, -1, -1, -1), h], 1) if count else h


def in_frames(layer: Callable[[Tensor], Tensor], h: Tensor) -> Tensor:
    """A layer of pictures ``(batch, channels, height, width)`` on every frame of a film."""
    pictures = layer(h.flatten(0, 1).movedim(-1, 1))
    film: Tensor = pictures.movedim(1, -1).unflatten(0, h.shape[:2])
    return film
