"""The encoder of the VQ-VAE paper's audio experiments."""

from __future__ import annotations

from math import prod
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit import DataSpec, Encoder
from toolkit.nn.context import encoder_context
from toolkit.nn.conv import conv, down
from toolkit.nn.residual import residual_stack
from toolkit.ranges import NonNegativeInt, PositiveInt
from toolkit_audio.rectified import rectified


@final
class ConvEncoder(Encoder):
    """Strided convolutions with ReLU, of window 4 at stride 2, and a 1-wide one to the latents.

    The encoder of van den Oord et al. 2017, section 4.3: six of stride 2 reduce 64 times, seven 128 times, and strides
    2, 2, 2, 2, 2, 4, 5 reduce 640 times. Mu-law levels enter on their companded scale.

    Args:
        hidden: channels of the strided layers.
        narrowest: channels of the first layer, doubled at each stride up to hidden, which saves most of the work where
            there are most samples; null: hidden, as in the paper.
        strides: of the convolutions; their product is samples per code.
        norm: whether the channels of every position are normalized to mean 0 and variance 1 before each ReLU; the paper
            does not say.
        residual_blocks: blocks after them, each ReLU, 3-wide, ReLU, 1-wide; the paper has 0.
    """

    rank = 1
    takes_padding = True

    def __init__(
        self,
        data: DataSpec,
        dim: int,
        *,
        hidden: PositiveInt = 256,
        narrowest: PositiveInt | None = None,
        strides: tuple[PositiveInt, ...] = (2, 2, 2, 2, 2, 2),
        norm: bool = False,
        residual_blocks: NonNegativeInt = 0,
    ) -> None:
        super().__init__()
        self.data, self.stride = data, (prod(strides),)
        layers: list[nn.Module] = []
        channels, wider = data.channels, narrowest or hidden
        for stride in strides:
            convolution, relu = rectified(down(1, channels, wider, stride))
            layers += [convolution, ChannelNorm(wider), relu] if norm else [convolution, relu]
            channels, wider = wider, min(hidden, 2 * wider)
        if residual_blocks:
            layers.append(residual_stack(1, channels, channels, residual_blocks))
        self.network = nn.Sequential(*layers, conv(1, channels, dim, 1))
        self.context = encoder_context(prod(strides), [self.network])

    def forward(self, x: Tensor) -> Tensor:
        """x ``(batch, 1, samples)``."""
        z: Tensor = self.network(self.data.scale(x))
        return z


class ChannelNorm(nn.Module):
    """Normalizes the channels of each position to mean 0 and variance 1, then applies a learned scale and shift."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, channels, positions)``."""
        return F.layer_norm(h.transpose(1, 2), self.scale.shape, self.scale, self.shift).transpose(1, 2)
