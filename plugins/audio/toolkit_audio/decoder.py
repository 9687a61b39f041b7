"""A decoder of sound that computes all samples at once."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import final

import torch
from torch import Tensor, nn

from toolkit import Condition, Decoder, Distribution, Likelihood
from toolkit.nn.conditioning import ConditionEmbedding, add_conditions
from toolkit.nn.context import decoder_context
from toolkit.nn.conv import conv, up
from toolkit.nn.residual import residual_stack
from toolkit.ranges import NonNegativeInt, PositiveInt
from toolkit_audio.rectified import rectified

QUIET = 0.1
"""Factor on the initial weights of the last layer. At the usual scale an untrained decoder is far louder than speech:
training would first silence it, and drag the latents along before their codes have settled."""


@final
class ConvDecoder(Decoder):
    """Residual blocks at the latents' rate, then strided transposed convolutions with ReLU: fast, and not
    autoregressive, so that all information comes from the codes.

    Conditions are embedded and added to the first layer's output.

    Args:
        hidden: channels at the latents' rate.
        narrowest: minimum of the channels, which are halved at each stride.
        residual_blocks: how many, each ReLU, 3-wide, ReLU, 1-wide.
        strides: of the transposed convolutions, from the latents up.
    """

    rank = 1
    takes_padding = True

    def __init__(
        self,
        dim: int,
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
        *,
        hidden: PositiveInt = 256,
        narrowest: PositiveInt = 64,
        residual_blocks: NonNegativeInt = 2,
        strides: tuple[PositiveInt, ...] = (2, 2, 2, 2, 2, 2),
    ) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.proj_in = conv(1, dim, hidden, 3)
        self.conditions = ConditionEmbedding(conditions, hidden) if conditions else None
        layers: list[nn.Module] = [residual_stack(1, hidden, hidden, residual_blocks)]
        channels = hidden
        for stride in strides:
            narrower = min(channels, max(narrowest, channels // 2))
            layers += rectified(up(1, channels, narrower, stride))
            channels = narrower
        last = conv(1, channels, likelihood.channels, 7)
        with torch.no_grad():
            last.get_parameter("weight").mul_(QUIET)
        self.network = nn.Sequential(*layers, last)
        self.context = decoder_context(prod(strides), [self.proj_in, self.network])

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        """z ``(batch, dim, codes)``."""
        h = add_conditions(self.proj_in(z), self.conditions, conditions)
        return self.likelihood(self.network(h))
