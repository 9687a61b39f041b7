"""A residual decoder over time, height and width."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import final

from torch import Tensor, nn

from toolkit import Condition, Decoder, Distribution, Likelihood
from toolkit.nn.conditioning import ConditionEmbedding, add_conditions
from toolkit.nn.context import decoder_context
from toolkit.ranges import NonNegativeInt, PositiveInt
from toolkit_video.layers import Conv, Up, check_strides, residual_stack


@final
class ConvDecoder(Decoder):
    """The mirror of the encoder ``video_conv``: residual 3x3x3 blocks, then strided transposed convolutions.

    Conditions are embedded and added to the first layer's output.

    Args:
        hidden: channels everywhere but in the latents.
        residual_blocks: how many, each ReLU, 3x3x3, ReLU, 1x1x1.
        residual_hidden: channels between a block's two convolutions; null: hidden.
        strides: of the transposed convolutions, from the latents up, each along time, height and width.
        attention: heads of the attention along each axis that follows every residual block; 0: none.
        causal: whether frames depend only on codes up to their own.
    """

    rank = 3

    def __init__(
        self,
        dim: int,
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
        *,
        hidden: PositiveInt = 128,
        residual_blocks: NonNegativeInt = 2,
        residual_hidden: PositiveInt | None = None,
        strides: tuple[tuple[PositiveInt, PositiveInt, PositiveInt], ...] = ((2, 2, 2), (1, 2, 2)),
        attention: NonNegativeInt = 0,
        causal: bool = False,
    ) -> None:
        super().__init__()
        check_strides(strides)
        self.likelihood, self.causal = likelihood, causal
        self.proj_in = Conv(dim, hidden, (3, 3, 3), causal=causal)
        self.conditions = ConditionEmbedding(conditions, hidden) if conditions else None
        self.residual = residual_stack(hidden, residual_hidden or hidden, residual_blocks, attention, causal=causal)
        layers: list[nn.Module] = []
        for stride in strides[:-1]:
            layers += [Up(hidden, hidden, stride, causal=causal), nn.ReLU()]
        channels = likelihood.channels
        # initialized even if it is replaced, so that a seed gives the same weights as in earlier versions
        last: nn.Module = Conv(hidden, channels, (3, 3, 3), causal=causal)
        if strides:
            last = Up(hidden, channels, strides[-1], causal=causal)
        self.up = nn.Sequential(*layers, last)
        if not attention:  # every position of which sees the borders
            self.context = decoder_context(prod(time for time, *_ in strides), [self.proj_in, self.residual, self.up])

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        """z ``(batch, dim, time, height, width)``."""
        h = add_conditions(self.proj_in(z), self.conditions, conditions)
        return self.likelihood(self.up(self.residual(h)))
