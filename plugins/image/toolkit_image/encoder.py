"""The encoder of the VQ-VAE paper's image experiments."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import final

from torch import Tensor

from toolkit import DataSpec, Encoder
from toolkit.nn.context import encoder_context
from toolkit.nn.conv import conv, down, down_stack
from toolkit.nn.residual import residual_stack
from toolkit.ranges import NonNegativeInt, PositiveInt


@final
class ConvEncoder(Encoder):
    """Strided 4x4 convolutions, residual 3x3 blocks, a 1x1 to the latents (van den Oord et al. 2017, section 4.1).

    Args:
        hidden: channels everywhere but in the latents.
        residual_blocks: how many, each ReLU, 3x3, ReLU, 1x1.
        residual_hidden: channels between a block's two convolutions; null: hidden.
        strides: of the strided convolutions; each divides both axes.
    """

    rank = 2

    def __init__(
        self,
        data: DataSpec,
        dim: int,
        *,
        hidden: PositiveInt = 256,
        residual_blocks: NonNegativeInt = 2,
        residual_hidden: PositiveInt | None = None,
        strides: tuple[PositiveInt, ...] = (2, 2),
    ) -> None:
        super().__init__()
        self.data = data
        self.stride = (prod(strides), prod(strides))
        self.down = down_stack(data.channels, hidden, strides, partial(down, 2), partial(conv, 2, kernel=3))
        self.residual = residual_stack(2, hidden, residual_hidden or hidden, residual_blocks)
        self.out = conv(2, hidden, dim, 1)
        self.context = encoder_context(prod(strides), [self.down, self.residual, self.out])

    def forward(self, x: Tensor) -> Tensor:
        """x ``(batch, channels, height, width)``."""
        z: Tensor = self.out(self.residual(self.down(self.data.scale(x))))
        return z
