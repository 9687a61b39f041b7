"""VidTok's decoder of films."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, final

from torch import Tensor, nn

from toolkit import Condition, DataSpec, Decoder, Distribution, Likelihood
from toolkit.nn.conditioning import ConditionEmbedding, add_conditions
from toolkit.nn.context import decoder_context
from toolkit.ranges import PositiveInt
from toolkit_video.vidtok_layers import FilmConv, Head, Padding, in_turns, middle
from toolkit_video.vidtok_scaling import SpaceUp, TimeRepeat, TimeUp, check_strides


@final
class VidTokDecoder(Decoder):
    """The mirror of the encoder ``video_vidtok``, with one residual block more in each level (Tang et al. 2024,
    arXiv:2412.13061). Frames depend on codes before them, and where they are interpolated on the one after their own.

    Where the data's frames are fewer than those of all codes, as with films of 1 + T frames, the first code's last ones
    are the film's beginning. Conditions are embedded and added to the first layer's output.

    Args:
        hidden: channels of the last level.
        multipliers: channels of each level, from the latents up, in multiples of hidden.
        blocks: residual blocks of a level over space, and as many over time; the encoder's and one more.
        strides: after each level, from the latents up, along time, height and width; [1,2,2] or [2,2,2], [1,1,1] for
            none; levels without one keep their grid.
        frames: how they are doubled: interpolated between neighbors, as VidTok 1.1 has it, or repeated, as 1.0.
    """

    rank = 3

    def __init__(
        self,
        data: DataSpec,
        dim: int,
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
        *,
        hidden: PositiveInt = 128,
        multipliers: tuple[PositiveInt, ...] = (4, 4, 2, 1),
        blocks: PositiveInt = 3,
        strides: tuple[tuple[PositiveInt, PositiveInt, PositiveInt], ...] = ((1, 2, 2), (2, 2, 2), (2, 2, 2)),
        padding: Padding = "still",
        frames: Literal["interpolated", "repeated"] = "interpolated",
    ) -> None:
        super().__init__()
        check_strides(strides, len(multipliers))
        if not multipliers:
            raise ValueError("multipliers=[]: at least one")
        self.likelihood = likelihood
        channels = hidden * multipliers[0]
        self.proj_in = FilmConv(dim, channels, padding=padding)
        self.conditions = ConditionEmbedding(conditions, channels) if conditions else None
        self.middle = middle(channels, padding)
        time, levels = 1, list[nn.Module]()
        for i, multiplier in enumerate(multipliers):
            stride = strides[i] if i < len(strides) else (1, 1, 1)
            layers = in_turns(channels, hidden * multiplier, blocks, padding)
            channels = hidden * multiplier
            if stride[1] > 1:
                layers.append(SpaceUp(channels))
            if stride[0] > 1:
                repeated = frames == "repeated"
                layers.append(TimeRepeat(channels, padding) if repeated else TimeUp(channels, padding, time))
            levels.append(nn.Sequential(*layers))
            time *= stride[0]
        self.levels = nn.Sequential(*levels)
        self.head = Head(channels, likelihood.channels, padding)
        self.lead = -data.axes[0] % time
        self.context = decoder_context(time, [self.proj_in, self.middle, self.levels, self.head])
        if self.lead and (steps := [condition.name for condition in conditions if condition.per_step]):
            raise ValueError(
                f"{steps[0]} changes along the data, whose {data.axes[0]} positions are no whole number of codes of"
                f" {time}: choose a multiple of {time} frames"
            )

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        """z ``(batch, dim, time, height, width)``."""
        h = self.proj_in(z.movedim(1, -1))
        if self.conditions is not None:
            h = add_conditions(h.movedim(-1, 1), self.conditions, conditions).movedim(1, -1)
        x: Tensor = self.head(self.levels(self.middle(h)))
        return self.likelihood(x[:, self.lead :].movedim(-1, 1))
