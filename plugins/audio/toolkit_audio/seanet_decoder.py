"""The decoder of the neural codecs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import final

from torch import Tensor, nn

from toolkit import Condition, Decoder, Distribution, Likelihood
from toolkit.decoder import MeanStream
from toolkit.nn.conditioning import ConditionEmbedding, over_grid
from toolkit.nn.context import decoder_context
from toolkit.ranges import PositiveInt
from toolkit_audio.kept import streamed
from toolkit_audio.seanet import (
    KERNEL,
    Dilations,
    LastKernel,
    LSTMLayers,
    Norm,
    PaddedConv,
    PaddedUp,
    Padding,
    ResidualKernel,
    Shortcut,
    Style,
    recurrent,
    units,
)
from toolkit_audio.starts import SPEECH


@final
class SeanetDecoder(Decoder):
    """SEANet's decoder, the mirror of its encoder: each stride halves the channels, then come residual units.

    SoundStream (Zeghidour et al. 2021, arXiv:2107.03312), with ``residual_kernel=7`` as there. EnCodec (Défossez et al.
    2022, arXiv:2210.13438) has ``dilations=[1] shortcut=true lstm_layers=2 padding=reflect``, and ``causal=true`` at
    24 kHz, ``norm=group`` at 48 kHz. Conditions are embedded and added to the first layer's output. An LSTM knows all
    that was before, so that it cannot be run on chunks.

    Args:
        hidden: channels after the last stride.
        strides: of the transposed convolutions, of window 2 * stride, from the latents up.
        causal: whether samples depend only on codes up to their own, as streaming needs.
    """

    rank = 1

    def __init__(
        self,
        dim: int,
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
        *,
        hidden: PositiveInt = 32,
        strides: tuple[PositiveInt, ...] = (8, 5, 4, 2),
        causal: bool = False,
        dilations: Dilations = (1, 3, 9),
        residual_kernel: ResidualKernel = 3,
        shortcut: Shortcut = False,
        lstm_layers: LSTMLayers = 0,
        last_kernel: LastKernel = KERNEL,
        padding: Padding = "zeros",
        norm: Norm = "weight",
    ) -> None:
        super().__init__()
        style = Style(causal, padding, norm)
        self.likelihood, self.causal = likelihood, causal and style.streams
        widths = [hidden * 2**k for k in reversed(range(len(strides) + 1))]
        self.proj_in = PaddedConv(dim, widths[0], KERNEL, style)
        self.conditions = ConditionEmbedding(conditions, widths[0]) if conditions else None
        layers = recurrent(widths[0], lstm_layers)
        for (channels, narrower), stride in zip(pairwise(widths), strides, strict=True):
            up = PaddedUp(channels, narrower, stride, style)
            layers += [nn.ELU(), up, *units(narrower, dilations, style, kernel=residual_kernel, shortcut=shortcut)]
        last = PaddedConv(hidden, likelihood.channels, last_kernel, style, gain=SPEECH)
        self.network = nn.Sequential(*layers, nn.ELU(), last)
        if style.streams and not lstm_layers:
            self.context = decoder_context(prod(strides), [self.proj_in, self.network])

    def mean_stream(self) -> MeanStream | None:
        if not self.causal or self.context is None:
            return None
        proj_in, network = self.proj_in.stream(), streamed(self.network)
        return lambda z, conditions: self.likelihood(network(self._conditioned(proj_in(z), conditions)))

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        """z ``(batch, dim, codes)``."""
        return self.likelihood(self.network(self._conditioned(self.proj_in(z), conditions)))

    def _conditioned(self, h: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        if self.conditions is None:
            return h
        return h + over_grid(self.conditions(conditions, h.shape[0]), h.shape[2:]).to(h)
