"""How ``video_vidtok`` makes a film's grid smaller and larger: by two in space, and by two in time beside it.

In time part of a result is a plain average, interpolation or repetition; how much of it, a learned share decides.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.nn.conv import started
from toolkit_video.layers import Triple
from toolkit_video.vidtok_layers import FilmConv, Padding, SpaceConv, in_frames, padded

MIX = 2.0
"""Start of the logit of the plain part's share."""


class SpaceDown(nn.Module):
    """Half the height and width, by a strided 3x3 convolution that looks right and down."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = started(nn.Conv2d(channels, channels, 3, stride=2))

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it."""
        return first, last

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, time, height, width, channels)``."""
        return in_frames(self.conv, F.pad(h, (0, 0, 0, 1, 0, 1)))


class SpaceUp(nn.Module):
    """Twice the height and width: each pixel four times, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = SpaceConv(channels, channels)

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it."""
        return first, last

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, time, height, width, channels)``."""
        pixels = h[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2, -1)
        out: Tensor = self.conv(pixels.flatten(4, 5).flatten(2, 3))
        return out


class TimeDown(nn.Module):
    """Half as many frames: of a pair and the frame before it their average and a strided convolution, mixed."""

    def __init__(self, channels: int, padding: Padding) -> None:
        super().__init__()
        self.padding = padding
        self.conv = FilmConv(channels, channels, 2, padding=padding)
        self.mix = nn.Parameter(torch.tensor([MIX]))

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it."""
        return self.conv.reads(first, last)

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, time, height, width, channels)``."""
        frames = padded(h, 1, self.padding)
        average = (frames[:, :-2:2] + frames[:, 1:-1:2] + frames[:, 2::2]) / 3
        return mixed(self.mix, average, self.conv(h))


class TimeUp(nn.Module):
    """Twice as many frames: interpolated between neighbors, and a convolution of that, mixed.

    The interpolation looks one frame ahead. Between the frames of a film's first code, ``alone`` of them, and all
    others there is none: with one frame or many, the first code gives the same.
    """

    def __init__(self, channels: int, padding: Padding, alone: int) -> None:
        super().__init__()
        self.alone = alone
        self.conv = FilmConv(channels, channels, padding=padding)
        self.mix = nn.Parameter(torch.tensor([MIX]))

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it; the first code's end is far away."""
        first, last = self.conv.reads(first, last)
        return (first - 1) // 2, (last + 1) // 2

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, time, height, width, channels)``."""
        own = torch.arange(h.shape[1], device=h.device)
        before = torch.where(own == self.alone, own, (own - 1).clamp(min=0))
        after = torch.where(own == self.alone - 1, own, (own + 1).clamp(max=h.shape[1] - 1))
        near, far = (h.index_select(1, torch.stack(pair, 1).flatten()) for pair in ((own, own), (before, after)))
        frames = torch.lerp(near, far, 0.25)
        return mixed(self.mix, frames, self.conv(frames))


class TimeRepeat(nn.Module):
    """Twice as many frames: each twice, and a convolution of that, mixed. It looks at no frame ahead."""

    def __init__(self, channels: int, padding: Padding) -> None:
        super().__init__()
        self.conv = FilmConv(channels, channels, padding=padding)
        self.mix = nn.Parameter(torch.tensor([MIX]))

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it."""
        first, last = self.conv.reads(first, last)
        return first // 2, last // 2

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, time, height, width, channels)``."""
        frames = h.repeat_interleave(2, 1)
        return mixed(self.mix, frames, self.conv(frames))


def mixed(mix: Tensor, plain: Tensor, learned: Tensor) -> Tensor:
    """A share of sigmoid(mix) of the first, and the rest of the second."""
    return learned + mix.sigmoid() * (plain - learned)


def check_strides(strides: tuple[Triple, ...], levels: int) -> None:
    """ValueError for a stride that the network cannot take, and for more of them than levels."""
    told = [list(stride) for stride in strides]
    if any((height, width) not in ((1, 1), (2, 2)) or not 1 <= time <= height for time, height, width in strides):
        raise ValueError(f"strides={told}: each is [1, 1, 1], [1, 2, 2] or [2, 2, 2] along time, height and width")
    if len(strides) > levels:
        raise ValueError(f"strides={told}: at most one for each of the {levels} multipliers")
