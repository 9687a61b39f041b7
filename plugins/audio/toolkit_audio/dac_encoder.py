"""The encoder of DAC."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import final

from torch import Tensor, nn

from toolkit import DataSpec, Encoder
from toolkit.nn.context import encoder_context
from toolkit.ranges import PositiveInt
from toolkit_audio.snake import KERNEL, Snake, convolution, down, units
from toolkit_audio.starts import SPEECH
from toolkit_audio.waveform import scaled_to_waveform


@final
class DACEncoder(Encoder):
    """DAC's encoder: three residual units of dilation 1, 3 and 9 before each stride, which doubles the channels, with
    snake activations.

    The Descript audio codec (Kumar et al. 2023, arXiv:2306.06546): strides 2, 4, 8, 8 at 44.1 kHz, and 2, 4, 5, 8 at 16
    and 24 kHz, with ``dim=1024``. Its input is the waveform, also for mu-law levels.

    Args:
        hidden: channels before the first stride.
        strides: of the convolutions, of window 2 * stride; their product is samples per code.
    """

    rank = 1

    def __init__(
        self,
        data: DataSpec,
        dim: int,
        *,
        hidden: PositiveInt = 64,
        strides: tuple[PositiveInt, ...] = (2, 4, 8, 8),
    ) -> None:
        super().__init__()
        self.data, self.stride = data, (prod(strides),)
        widths = [hidden * 2**k for k in range(len(strides) + 1)]
        layers: list[nn.Module] = [convolution(data.channels, hidden, KERNEL, gain=1 / SPEECH)]
        for (channels, wider), stride in zip(pairwise(widths), strides, strict=True):
            layers.append(nn.Sequential(*units(channels), Snake(channels), down(channels, wider, stride)))
        self.network = nn.Sequential(*layers, Snake(widths[-1]), convolution(widths[-1], dim, 3))
        self.context = encoder_context(prod(strides), [self.network])

    def forward(self, x: Tensor) -> Tensor:
        """x ``(batch, 1, samples)``."""
        z: Tensor = self.network(scaled_to_waveform(self.data.scale(x), self.data))
        return z
