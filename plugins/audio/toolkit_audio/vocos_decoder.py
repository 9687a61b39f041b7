"""A decoder through an inverse short-time Fourier transform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from toolkit import Condition, Decoder, Distribution, Likelihood
from toolkit.device import in_float32
from toolkit.nn.codebook import upcast
from toolkit.nn.conditioning import ConditionEmbedding, add_conditions
from toolkit.nn.context import decoder_context
from toolkit.ranges import PositiveInt
from toolkit_audio.convnext import KERNEL, ChannelNorm, ConvNeXt
from toolkit_audio.spectra import inverse_stft

LOUDEST = 100.0
"""Of magnitudes, which are exponentials, and would drown all else early in training."""


@final
class VocosDecoder(Decoder):
    """Convolutions at the latents' rate to magnitudes and phases of spectra, and the sound that has these.

    Vocos (Siuzdak 2023, arXiv:2306.00814): nothing is computed at the samples' rate but an inverse Fourier transform,
    which makes it some times as fast as transposed convolutions. Conditions are embedded and added to the first layer's
    output.

    Args:
        hidden: channels of the convolutions.
        layers: how many blocks of ConvNeXt (Liu et al. 2022), each 7-wide.
        expansion: channels inside a block, as a multiple of hidden.
        hop: samples to a latent, as encoder's strides multiply to.
        window: samples of a spectrum's Hann window; four hops are usual.
    """

    rank = 1

    def __init__(
        self,
        dim: int,
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
        *,
        hidden: PositiveInt = 512,
        layers: PositiveInt = 8,
        expansion: PositiveInt = 3,
        hop: PositiveInt = 256,
        window: PositiveInt = 1024,
    ) -> None:
        super().__init__()
        if window < 2 * hop:
            raise ValueError(f"window={window}: at least two hops of {hop}, so that every sample lies in a window")
        self.likelihood, self.hop = likelihood, hop
        self.proj_in = nn.Conv1d(dim, hidden, KERNEL, padding=KERNEL // 2)
        self.conditions = ConditionEmbedding(conditions, hidden) if conditions else None
        blocks = [ConvNeXt(hidden, expansion * hidden, 1 / layers) for _ in range(layers)]
        self.network = nn.Sequential(ChannelNorm(hidden), *blocks, ChannelNorm(hidden))
        self.head = nn.Conv1d(hidden, 2 * (window // 2 + 1) * likelihood.channels, 1)
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        self.apply(_initialize)
        self.context = decoder_context(hop, [self.proj_in, self.network, self])

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """Of the spectra, as toolkit.nn.context has it. A Hann window's first sample is 0."""
        size = len(self.get_buffer("window"))
        before = (size - self.hop) // 2
        return -((size - 1 - before - first) // self.hop), (last + before - 1) // self.hop

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        """z ``(batch, dim, codes)``."""
        h = add_conditions(self.proj_in(z), self.conditions, conditions)
        return self.likelihood(self.sound(self.head(self.network(h))))

    def sound(self, h: Tensor) -> Tensor:
        """Logarithms of magnitudes, and phases, ``(batch, 2 * bins * channels, codes)``, to what has them."""
        with in_float32(h.device):
            magnitude, phase = upcast(h).unflatten(1, (self.likelihood.channels, 2, -1)).unbind(2)
            magnitude = magnitude.exp().clamp(max=LOUDEST)
            return inverse_stft(magnitude * phase.cos(), magnitude * phase.sin(), self.get_buffer("window"), self.hop)


def _initialize(module: nn.Module) -> None:
    """Small weights; so all that is added to a block's input starts small, and all magnitudes at 1."""
    if isinstance(module, nn.Conv1d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
