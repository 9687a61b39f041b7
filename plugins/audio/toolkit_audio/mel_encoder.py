"""Convolutions over log-mel features."""

from __future__ import annotations

from math import prod
from typing import final

from torch import Tensor, nn

from toolkit import DataSpec, Encoder
from toolkit.nn.context import encoder_context
from toolkit.nn.conv import conv, down
from toolkit.nn.residual import residual_stack
from toolkit.ranges import NonNegativeInt, PositiveInt
from toolkit_audio.logmel_encoder import LogMelEncoder
from toolkit_audio.rectified import rectified


@final
class MelEncoder(Encoder):
    """Log-mel magnitudes at every hop, convolutions over them, and a 1-wide one to the latents.

    As in the speech models of the ZeroSpeech challenges (Chorowski et al. 2019, arXiv:1901.08810; van Niekerk et al.
    2020, arXiv:2005.09409). Convolutions over samples need days to learn what is built in here: magnitudes without
    phases, on the ear's scale of pitch. So it learns from minutes of speech, on a CPU.

    Args:
        hidden: channels everywhere but in the latents.
        hop: samples from one spectrum to the next.
        window: samples of a spectrum's Hann window.
        bands: how many, of the mel scale.
        width: of the first convolution in spectra, odd. With width 1, no strides and no residual blocks a code depends
            on one window and no context: codes then stand for sounds and not for their surroundings.
        strides: of the convolutions after it; their product times hop is samples per code.
        residual_blocks: blocks after them, each ReLU, 3-wide, ReLU, 1-wide.
    """

    rank = 1

    def __init__(
        self,
        data: DataSpec,
        dim: int,
        *,
        hidden: PositiveInt = 256,
        hop: PositiveInt = 160,
        window: PositiveInt = 512,
        bands: PositiveInt = 80,
        width: PositiveInt = 3,
        strides: tuple[PositiveInt, ...] = (2, 2),
        residual_blocks: NonNegativeInt = 2,
    ) -> None:
        super().__init__()
        if width % 2 == 0:
            raise ValueError(f"width={width}: an odd number, so that it is symmetric")
        self.stride = (hop * prod(strides),)
        self.spectra = LogMelEncoder(data, bands, hop=hop, window=window)
        layers = rectified(conv(1, bands, hidden, width))
        for stride in strides:
            layers += rectified(down(1, hidden, hidden, stride))
        layers += [residual_stack(1, hidden, hidden, residual_blocks), conv(1, hidden, dim, 1)]
        self.network = nn.Sequential(*layers)
        self.context = encoder_context(hop * prod(strides), [self.spectra, self.network])

    def forward(self, x: Tensor) -> Tensor:
        """x ``(batch, 1, samples)``."""
        z: Tensor = self.network(self.spectra(x))
        return z
