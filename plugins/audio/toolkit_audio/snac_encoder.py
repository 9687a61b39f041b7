"""The encoder of SNAC."""

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
from toolkit_audio.window_attention import AttentionWindow, WindowAttention


@final
class SNACEncoder(Encoder):
    """SNAC's encoder: DAC's, with depth-wise convolutions in its residual units and at its end, and attention inside
    windows.

    The multi-scale neural audio codec (Siuzdak et al. 2024, arXiv:2410.14411): ``dim=768`` and no window at 24 kHz,
    ``dim=1024`` and windows of 32 with strides 2, 3, 8, 8 at 32 kHz, and 3, 3, 7, 7 at 44.1 kHz. Its codes are those of
    ``multiscale``. Its input is the waveform, also for mu-law levels.

    Args:
        strides: of the convolutions, of window 2 * stride; their product is samples per latent. Each doubles the
            channels, up to dim.
    """

    rank = 1

    def __init__(
        self,
        data: DataSpec,
        dim: int,
        *,
        strides: tuple[PositiveInt, ...] = (2, 4, 8, 8),
        window: AttentionWindow = None,
    ) -> None:
        super().__init__()
        often = len(strides)
        if dim % 2**often:
            raise ValueError(f"strides={list(strides)}: each doubles the channels, which dim={dim} is no result of")
        widths = [dim >> often - k for k in range(often + 1)]
        self.data = data
        layers: list[nn.Module] = [convolution(data.channels, widths[0], KERNEL, gain=1 / SPEECH)]
        for (channels, wider), stride in zip(pairwise(widths), strides, strict=True):
            layers.append(nn.Sequential(*units(channels, channels), Snake(channels), down(channels, wider, stride)))
        layers += [] if window is None else [WindowAttention(dim, window)]
        self.network = nn.Sequential(*layers, convolution(dim, dim, KERNEL, groups=dim))
        if window is None:  # else what a position depends on is that of its place in a window
            self.stride = (prod(strides),)
            self.context = encoder_context(prod(strides), [self.network])

    def forward(self, x: Tensor) -> Tensor:
        """x ``(batch, 1, samples)``."""
        z: Tensor = self.network(scaled_to_waveform(self.data.scale(x), self.data))
        return z
