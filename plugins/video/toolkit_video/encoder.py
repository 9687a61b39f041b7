"""A residual encoder over time, height and width."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import final

from torch import Tensor

from toolkit import DataSpec, Encoder
from toolkit.nn.context import encoder_context
from toolkit.nn.conv import down_stack
from toolkit.ranges import NonNegativeInt, PositiveInt
from toolkit_video.layers import Conv, check_strides, down, residual_stack


@final
class ConvEncoder(Encoder):
    """Strided convolutions, residual 3x3x3 blocks, a 1x1x1 to the latents: the VQ-VAE paper's image encoder (section
    4.1) with an axis more; with axial attention VideoGPT's (Yan et al. 2021, arXiv:2104.10157), but for its batch norm.

    Args:
        hidden: channels everywhere but in the latents.
        residual_blocks: how many, each ReLU, 3x3x3, ReLU, 1x1x1.
        residual_hidden: channels between a block's two convolutions; null: hidden.
        strides: of the strided convolutions, each along time, height and width, such as [[1,2,2],[2,2,2]].
        attention: heads of the attention along each axis that follows every residual block; 0: none.
        causal: whether codes depend only on frames up to their own.
    """

    rank = 3

    def __init__(
        self,
        data: DataSpec,
        dim: int,
        *,
        hidden: PositiveInt = 128,
        residual_blocks: NonNegativeInt = 2,
        residual_hidden: PositiveInt | None = None,
        strides: tuple[tuple[PositiveInt, PositiveInt, PositiveInt], ...] = ((1, 2, 2), (2, 2, 2)),
        attention: NonNegativeInt = 0,
        causal: bool = False,
    ) -> None:
        super().__init__()
        check_strides(strides)
        self.data, self.causal = data, causal
        strided, plain = partial(down, causal=causal), partial(Conv, kernel=(3, 3, 3), causal=causal)
        self.down = down_stack(data.channels, hidden, strides, strided, plain)
        self.residual = residual_stack(hidden, residual_hidden or hidden, residual_blocks, attention, causal=causal)
        self.out = Conv(hidden, dim, (1, 1, 1), causal=causal)
        if not attention:  # every position of which sees the borders
            stride = tuple(prod(steps) for steps in zip((1, 1, 1), *strides, strict=True))
            self.stride = stride
            self.context = encoder_context(stride[0], [self.down, self.residual, self.out])

    def forward(self, x: Tensor) -> Tensor:
        """x ``(batch, channels, time, height, width)``."""
        z: Tensor = self.out(self.residual(self.down(self.data.scale(x))))
        return z
