"""Log-mel features; no parameters."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from toolkit import DataSpec, Encoder
from toolkit.device import in_float32
from toolkit.nn.context import encoder_context
from toolkit.ranges import PositiveInt
from toolkit_audio.spectra import FAINTEST, magnitudes, mel_filters
from toolkit_audio.waveform import sample_rate_of, scaled_to_waveform

MIDDLE, SPREAD = -6.0, 3.0
"""Approximate mean and deviation of the natural logs of speech's mel magnitudes."""


@final
class LogMelEncoder(Encoder):
    """Log-mel magnitudes with a band for each of the ``dim`` channels of the latents; no parameters.

    With ``quantizer=ema`` the codes are those of k-means over spectra, and only the decoder learns: a baseline for
    what learned encoders know of phones.

    Args:
        hop: samples from one latent to the next.
        window: samples of a spectrum's Hann window, around the middle of the hop. With shorter windows codes match
            phones better, because they leave out the context.
    """

    rank = 1

    def __init__(self, data: DataSpec, dim: int, *, hop: PositiveInt = 640, window: PositiveInt = 640) -> None:
        super().__init__()
        if window < hop:
            raise ValueError(f"window={window}: at least as long as hop={hop}, or samples between windows are ignored")
        self.data, self.hop, self.stride = data, hop, (hop,)
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        self.register_buffer("filters", mel_filters(dim, window, sample_rate_of(data)), persistent=False)
        self.context = encoder_context(hop, [self])

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it. A Hann window's first sample is 0."""
        size = len(self.get_buffer("window"))
        start = self.hop // 2 - size // 2
        return first * self.hop + start + (size > 1), last * self.hop + start + size - 1

    def forward(self, x: Tensor) -> Tensor:
        """x ``(batch, 1, samples)``."""
        waveform = scaled_to_waveform(self.data.scale(x), self.data)[:, 0, self.hop // 2 :]
        with in_float32(x.device):  # what is quantized must not be rounded first
            mel = self.get_buffer("filters") @ magnitudes(waveform, self.get_buffer("window"), self.hop)
            return (mel.clamp(min=FAINTEST).log() - MIDDLE) / SPREAD
