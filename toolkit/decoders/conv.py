"""Transposed convolutions over one to three axes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod
from typing import final

from torch import Tensor

from toolkit.decoder import Decoder
from toolkit.likelihood import Distribution, Likelihood
from toolkit.nn.conditioning import ConditionEmbedding, add_conditions
from toolkit.nn.context import decoder_context
from toolkit.nn.conv import CONV, UP, Up, conv, up_stack
from toolkit.nn.residual import residual_stack
from toolkit.ranges import NonNegativeInt, PositiveInt
from toolkit.spec import Condition


@final
class ConvDecoder(Decoder):
    """The mirror of the encoder ``conv``: residual 3-wide blocks, then strided transposed convolutions.

    Conditions are embedded and added to the first layer's output.

    Args:
        hidden: channels of all layers but the last.
        residual_blocks: number of residual blocks, each ReLU, 3-wide, ReLU, 1-wide.
        residual_hidden: channels between a block's two convolutions; null: hidden.
        strides: of the layers that make the grid larger, in order; each multiplies every axis.
    """

    takes_padding = True

    def __init__(
        self,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
        *,
        hidden: PositiveInt = 128,
        residual_blocks: NonNegativeInt = 2,
        residual_hidden: PositiveInt | None = None,
        strides: tuple[PositiveInt, ...] = (2, 2),
        upsampling: Up = "transposed",
    ) -> None:
        super().__init__()
        rank = len(grid)
        if rank not in CONV:
            raise ValueError(f"works on 1 to 3 axes, but these latents have {rank}")
        if any(stride < 1 for stride in strides):
            raise ValueError(f"strides={list(strides)}: each at least 1")
        self.likelihood = likelihood
        self.proj_in = conv(rank, dim, hidden, 3)
        self.conditions = ConditionEmbedding(conditions, hidden) if conditions else None
        self.residual = residual_stack(rank, hidden, residual_hidden or hidden, residual_blocks)
        self.up = up_stack(
            hidden, likelihood.channels, strides, partial(UP[upsampling], rank), partial(conv, rank, kernel=3)
        )
        self.context = decoder_context(prod(strides), [self.proj_in, self.residual, self.up])

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        """z ``(batch, dim, *grid)``."""
        h = add_conditions(self.proj_in(z), self.conditions, conditions)
        return self.likelihood(self.up(self.residual(h)))
