"""The encoder of the neural codecs."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import final

from torch import Tensor, nn

from toolkit import DataSpec, Encoder
from toolkit.nn.context import encoder_context
from toolkit.ranges import PositiveInt
from toolkit_audio.seanet import KERNEL, PaddedConv, units
from toolkit_audio.waveform import scaled_to_waveform


@final
class SeanetEncoder(Encoder):
    """SEANet's encoder: three residual units of dilation 1, 3 and 9 before each stride, which doubles the channels.

    SoundStream (Zeghidour et al. 2021, arXiv:2107.03312). Its input is the waveform, also for mu-law levels.

    Args:
        hidden: channels before the first stride.
        strides: of the convolutions, of window 2 * stride; their product is samples per code.
        causal: whether codes depend only on samples up to their own, as streaming needs.
    """

    rank = 1

    def __init__(
        self,
        data: DataSpec,
        dim: int,
        *,
        hidden: PositiveInt = 32,
        strides: tuple[PositiveInt, ...] = (2, 4, 5, 8),
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.data, self.stride, self.causal = data, (prod(strides),), causal
        widths = [hidden * 2**k for k in range(len(strides) + 1)]
        layers: list[nn.Module] = [PaddedConv(data.channels, hidden, KERNEL, causal=causal)]
        for (channels, wider), stride in zip(pairwise(widths), strides, strict=True):
            down = PaddedConv(channels, wider, 2 * stride, stride=stride, causal=causal)
            layers += [*units(channels, causal=causal), nn.ELU(), down]
        self.network = nn.Sequential(*layers, nn.ELU(), PaddedConv(widths[-1], dim, 3, causal=causal))
        self.context = encoder_context(prod(strides), [self.network])

    def forward(self, x: Tensor) -> Tensor:
        """x ``(batch, 1, samples)``."""
        z: Tensor = self.network(scaled_to_waveform(self.data.scale(x), self.data))
        return z
