"""An encoder that hears before it learns."""

from __future__ import annotations

from math import prod
from typing import final

import torch
from torch import Tensor, nn

from toolkit import DataSpec, Encoder
from toolkit.nn.conv import conv, down
from toolkit.nn.residual import residual_stack
from toolkit_audio.rectified import rectified
from toolkit_audio.spectra import FAINTEST, magnitudes, mel_filters
from toolkit_audio.waveform import heard, sample_rate_of

MIDDLE, SPREAD = -6.0, 3.0
"""Of the natural logs of speech's mel magnitudes, roughly."""


@final
class MelEncoder(Encoder):
    """Log-mel magnitudes at every hop, convolutions over them, and a 1-wide one to the latents.

    As in the speech models of the ZeroSpeech challenges (Chorowski et al. 2019, arXiv:1901.08810; van Niekerk et al.
    2020, arXiv:2005.09409). What convolutions over samples learn in days is given here: phases are left out, and
    pitches lie as in the ear. So it learns from minutes of speech, on a CPU.

    Args:
        hidden: channels everywhere but in the latents.
        hop: samples from one spectrum to the next.
        window: samples of a spectrum's Hann window.
        bands: of the mel scale.
        strides: of the convolutions; their product and the hop's is samples per code.
        residual_blocks: after them, each ReLU, 3-wide, ReLU, 1-wide.
    """

    rank = 1

    def __init__(
        self,
        data: DataSpec,
        dim: int,
        *,
        hidden: int = 256,
        hop: int = 160,
        window: int = 512,
        bands: int = 80,
        strides: tuple[int, ...] = (2, 2),
        residual_blocks: int = 2,
    ) -> None:
        super().__init__()
        if window < hop:
            raise ValueError(f"window={window}: at least as long as hop={hop}, or samples between windows go unheard")
        self.data, self.hop, self.stride = data, hop, (hop * prod(strides),)
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        self.register_buffer("filters", mel_filters(bands, window, sample_rate_of(data)), persistent=False)
        layers = rectified(conv(1, bands, hidden, 3))
        for stride in strides:
            layers += rectified(down(1, hidden, hidden, stride))
        layers += [residual_stack(1, hidden, hidden, residual_blocks), conv(1, hidden, dim, 1)]
        self.network = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """x ``(batch, 1, samples)``."""
        waveform = heard(self.data.scale(x), self.data)[:, 0, self.hop // 2 :]
        mel = self.get_buffer("filters") @ magnitudes(waveform, self.get_buffer("window"), self.hop)
        z: Tensor = self.network((mel.clamp(min=FAINTEST).log() - MIDDLE) / SPREAD)
        return z
