"""VidTok's encoder of films."""

from __future__ import annotations

from math import prod
from typing import final

from torch import Tensor, nn

from toolkit import DataSpec, Encoder
from toolkit.nn.context import encoder_context
from toolkit.ranges import PositiveInt
from toolkit_video.layers import Triple
from toolkit_video.vidtok_layers import FilmConv, Head, Padding, in_turns, middle, still
from toolkit_video.vidtok_scaling import SpaceDown, TimeDown, check_strides


@final
class VidTokEncoder(Encoder):
    """Residual blocks over space and over time in turns, on ever smaller grids: the causal encoder of VidTok (Tang et
    al. 2024, arXiv:2412.13061), with a layer norm.

    A code stands for a stride of frames. Where the data's frames are no whole number of these, as with films of 1 + T
    frames, the first code stands for the fewer: before a film its first frame stands still. A film of one frame is a
    picture.

    Args:
        hidden: channels of the first level.
        multipliers: channels of each level, from the data down, in multiples of hidden.
        blocks: residual blocks of a level over space, and as many over time.
        strides: after each level, from the data down, along time, height and width; [1,2,2] or [2,2,2], [1,1,1] for
            none; levels without one keep their grid.
    """

    rank = 3
    causal = True

    def __init__(
        self,
        data: DataSpec,
        dim: int,
        *,
        hidden: PositiveInt = 128,
        multipliers: tuple[PositiveInt, ...] = (1, 2, 4, 4),
        blocks: PositiveInt = 2,
        strides: tuple[tuple[PositiveInt, PositiveInt, PositiveInt], ...] = ((1, 2, 2), (2, 2, 2), (2, 2, 2)),
        padding: Padding = "still",
    ) -> None:
        super().__init__()
        check_strides(strides, len(multipliers))
        if not multipliers:
            raise ValueError("multipliers=[]: at least one")
        self.data = data
        self.proj_in = FilmConv(data.channels, hidden, padding=padding)
        channels, levels = hidden, list[nn.Module]()
        for i, multiplier in enumerate(multipliers):
            stride = strides[i] if i < len(strides) else (1, 1, 1)
            levels.append(_level(channels, hidden * multiplier, blocks, stride, padding))
            channels = hidden * multiplier
        self.levels = nn.Sequential(*levels)
        self.middle = middle(channels, padding)
        self.head = Head(channels, dim, padding)
        time = prod(stride for stride, *_ in strides)
        self.lead = -data.axes[0] % time
        self.stride = (time, None, None)  # its attention sees the borders of a frame
        before, after = encoder_context(time, [self.proj_in, self.levels, self.middle, self.head])
        self.context = (before + self.lead, after)

    def forward(self, x: Tensor) -> Tensor:
        """x ``(batch, channels, time, height, width)``."""
        h = still(self.data.scale(x).movedim(1, -1), self.lead)
        z: Tensor = self.head(self.middle(self.levels(self.proj_in(h))))
        return z.movedim(-1, 1)


def _level(inputs: int, outputs: int, blocks: int, stride: Triple, padding: Padding) -> nn.Sequential:
    """Blocks over space and over time in turns, then the strides."""
    layers = in_turns(inputs, outputs, blocks, padding)
    if stride[1] > 1:
        layers.append(SpaceDown(outputs))
    if stride[0] > 1:
        layers.append(TimeDown(outputs, padding))
    return nn.Sequential(*layers)
