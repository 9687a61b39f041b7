"""The encoder of the neural codecs."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import final

from torch import Tensor, nn

from toolkit import DataSpec, Encoder
from toolkit.encoder import EncoderStream
from toolkit.nn.context import encoder_context
from toolkit.ranges import PositiveInt
from toolkit_audio.kept import streamed
from toolkit_audio.seanet import (
    KERNEL,
    Dilations,
    LastKernel,
    LSTMLayers,
    Norm,
    PaddedConv,
    Padding,
    ResidualKernel,
    Shortcut,
    Style,
    recurrent,
    units,
)
from toolkit_audio.starts import SPEECH
from toolkit_audio.waveform import scaled_to_waveform


@final
class SeanetEncoder(Encoder):
    """SEANet's encoder: residual units, by default of dilation 1, 3 and 9, before each stride, which doubles the
    channels.

    SoundStream (Zeghidour et al. 2021, arXiv:2107.03312), with ``residual_kernel=7`` as there. EnCodec (Défossez et al.
    2022, arXiv:2210.13438) has ``dilations=[1] shortcut=true lstm_layers=2 last_kernel=7 padding=reflect``, and
    ``causal=true`` at 24 kHz, ``norm=group`` at 48 kHz. Its input is the waveform, also for mu-law levels. An LSTM
    knows all that was before, so that it cannot be run on chunks.

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
        dilations: Dilations = (1, 3, 9),
        residual_kernel: ResidualKernel = 3,
        shortcut: Shortcut = False,
        lstm_layers: LSTMLayers = 0,
        last_kernel: LastKernel = 3,
        padding: Padding = "zeros",
        norm: Norm = "weight",
    ) -> None:
        super().__init__()
        style = Style(causal, padding, norm)
        self.data, self.causal = data, causal and style.streams
        widths = [hidden * 2**k for k in range(len(strides) + 1)]
        layers: list[nn.Module] = [PaddedConv(data.channels, hidden, KERNEL, style, gain=1 / SPEECH)]
        for (channels, wider), stride in zip(pairwise(widths), strides, strict=True):
            down = PaddedConv(channels, wider, 2 * stride, style, stride=stride)
            beside = units(channels, dilations, style, kernel=residual_kernel, shortcut=shortcut)
            layers += [*beside, nn.ELU(), down]
        layers += recurrent(widths[-1], lstm_layers)
        self.network = nn.Sequential(*layers, nn.ELU(), PaddedConv(widths[-1], dim, last_kernel, style))
        if norm != "group" and not lstm_layers:  # else every position depends on the first one
            self.stride = (prod(strides),)
            self.context = encoder_context(prod(strides), [self.network]) if style.streams else None

    def stream(self) -> EncoderStream | None:
        if not self.causal or self.context is None:
            return None
        network = streamed(self.network)
        return lambda x: network(scaled_to_waveform(self.data.scale(x), self.data))

    def forward(self, x: Tensor) -> Tensor:
        """x ``(batch, 1, samples)``."""
        z: Tensor = self.network(scaled_to_waveform(self.data.scale(x), self.data))
        return z
