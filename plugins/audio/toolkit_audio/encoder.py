"""The encoder of the VQ-VAE paper's audio experiments."""

from __future__ import annotations

from math import prod
from typing import final

from torch import Tensor, nn

from toolkit import DataSpec, Encoder
from toolkit.nn.conv import conv, down
from toolkit.nn.residual import residual_stack
from toolkit_audio.rectified import rectified


@final
class ConvEncoder(Encoder):
    """Strided convolutions with ReLU, of window 4 at stride 2, and a 1-wide one to the latents.

    The encoder of van den Oord et al. 2017, section 4.3: six of stride 2 reduce 64 times, seven 128 times, and strides
    2, 2, 2, 2, 2, 4, 5 reduce 640 times. Mu-law levels enter on their companded scale.

    Args:
        hidden: channels everywhere but in the latents.
        strides: of the convolutions; their product is samples per code.
        residual_blocks: after them, each ReLU, 3-wide, ReLU, 1-wide; the paper has none.
    """

    rank = 1

    def __init__(
        self,
        data: DataSpec,
        dim: int,
        *,
        hidden: int = 256,
        strides: tuple[int, ...] = (2, 2, 2, 2, 2, 2),
        residual_blocks: int = 0,
    ) -> None:
        super().__init__()
        self.data, self.stride = data, (prod(strides),)
        layers: list[nn.Module] = []
        channels = data.channels
        for stride in strides:
            layers += rectified(down(1, channels, hidden, stride))
            channels = hidden
        if residual_blocks:
            layers.append(residual_stack(1, channels, channels, residual_blocks))
        self.network = nn.Sequential(*layers, conv(1, channels, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x ``(batch, 1, samples)``."""
        z: Tensor = self.network(self.data.scale(x))
        return z
