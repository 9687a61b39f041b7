"""Strided convolutions over one to three axes."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import final

from torch import Tensor

from toolkit.encoder import Encoder
from toolkit.nn.context import encoder_context
from toolkit.nn.conv import CONV, conv, down, down_stack
from toolkit.nn.residual import residual_stack
from toolkit.ranges import NonNegativeInt, PositiveInt
from toolkit.spec import DataSpec


@final
class ConvEncoder(Encoder):
    """Strided convolutions, residual 3-wide blocks, a 1-wide one to the latents (van den Oord et al. 2017, 4.1).

    Works on one to three axes, with the same strides for all.

    Args:
        hidden: channels of all layers but the last.
        residual_blocks: number of residual blocks, each ReLU, 3-wide, ReLU, 1-wide.
        residual_hidden: channels between a block's two convolutions; null: hidden.
        strides: strides of the convolutions; each divides every axis.
    """

    takes_padding = True

    def __init__(
        self,
        data: DataSpec,
        dim: int,
        *,
        hidden: PositiveInt = 128,
        residual_blocks: NonNegativeInt = 2,
        residual_hidden: PositiveInt | None = None,
        strides: tuple[PositiveInt, ...] = (2, 2),
    ) -> None:
        super().__init__()
        rank = data.rank
        if rank not in CONV:
            raise ValueError(f"works on 1 to 3 axes, but this data has {rank}")
        if any(stride < 1 for stride in strides):
            raise ValueError(f"strides={list(strides)}: each at least 1")
        self.data, self.stride = data, (prod(strides),) * rank
        self.down = down_stack(data.channels, hidden, strides, partial(down, rank), partial(conv, rank, kernel=3))
        self.residual = residual_stack(rank, hidden, residual_hidden or hidden, residual_blocks)
        self.out = conv(rank, hidden, dim, 1)
        self.context = encoder_context(prod(strides), [self.down, self.residual, self.out])

    def forward(self, x: Tensor) -> Tensor:
        """x ``(batch, channels, *axes)`` to ``(batch, dim, *axes / strides)``."""
        z: Tensor = self.out(self.residual(self.down(self.data.scale(x))))
        return z
