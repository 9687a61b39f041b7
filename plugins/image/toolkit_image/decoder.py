"""The decoder of the VQ-VAE paper's image experiments."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod
from typing import final

from torch import Tensor

from toolkit import Condition, Decoder, Distribution, Likelihood
from toolkit.nn.conditioning import ConditionEmbedding, add_conditions
from toolkit.nn.context import decoder_context
from toolkit.nn.conv import UP, Up, conv, up_stack
from toolkit.nn.residual import residual_stack
from toolkit.ranges import NonNegativeInt, PositiveInt


@final
class ConvDecoder(Decoder):
    """Residual 3x3 blocks, then strided 4x4 transposed convolutions (van den Oord et al. 2017, section 4.1).

    These can leave a grid of as many pixels as they stride, above all where more than the likelihood is asked for:
    ``upsampling=nearest`` does not.

    Conditions are embedded and added to the first layer's output.

    Args:
        hidden: channels everywhere but in the latents.
        residual_blocks: how many, each ReLU, 3x3, ReLU, 1x1.
        residual_hidden: channels between a block's two convolutions; null: hidden.
        strides: of the layers that make the grid larger, from the latents up.
    """

    rank = 2

    def __init__(
        self,
        dim: int,
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
        *,
        hidden: PositiveInt = 256,
        residual_blocks: NonNegativeInt = 2,
        residual_hidden: PositiveInt | None = None,
        strides: tuple[PositiveInt, ...] = (2, 2),
        upsampling: Up = "transposed",
    ) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.proj_in = conv(2, dim, hidden, 3)
        self.conditions = ConditionEmbedding(conditions, hidden) if conditions else None
        self.residual = residual_stack(2, hidden, residual_hidden or hidden, residual_blocks)
        self.up = up_stack(hidden, likelihood.channels, strides, partial(UP[upsampling], 2), partial(conv, 2, kernel=3))
        self.context = decoder_context(prod(strides), [self.proj_in, self.residual, self.up])

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        """z ``(batch, dim, height, width)``."""
        h = add_conditions(self.proj_in(z), self.conditions, conditions)
        return self.likelihood(self.up(self.residual(h)))
