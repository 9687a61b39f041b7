"""The decoder of DAC."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import final

from torch import Tensor, nn

from toolkit import Condition, Decoder, Distribution, Likelihood
from toolkit.nn.conditioning import ConditionEmbedding, add_conditions
from toolkit.nn.context import decoder_context
from toolkit.ranges import PositiveInt
from toolkit_audio.snake import KERNEL, Snake, convolution, units, up
from toolkit_audio.starts import SPEECH


@final
class DACDecoder(Decoder):
    """DAC's decoder: each stride halves the channels, then come three residual units of dilation 1, 3 and 9, with snake
    activations.

    The Descript audio codec (Kumar et al. 2023, arXiv:2306.06546): strides 8, 8, 4, 2 at 44.1 kHz, and 8, 5, 4, 2 at 16
    and 24 kHz. Conditions are embedded and added to the first layer's output.

    Args:
        hidden: channels before the first stride.
        strides: of the transposed convolutions, of window 2 * stride, from the latents up.
        tanh: whether a tanh keeps what it gives in [-1, 1], as a likelihood's mean is; not for logits.
    """

    rank = 1

    def __init__(
        self,
        dim: int,
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
        *,
        hidden: PositiveInt = 1536,
        strides: tuple[PositiveInt, ...] = (8, 8, 4, 2),
        tanh: bool = True,
    ) -> None:
        super().__init__()
        if hidden % 2 ** len(strides):
            raise ValueError(f"hidden={hidden}: a multiple of {2 ** len(strides)}, as it is halved at each stride")
        self.likelihood = likelihood
        widths = [hidden // 2**k for k in range(len(strides) + 1)]
        self.proj_in = convolution(dim, hidden, KERNEL)
        self.conditions = ConditionEmbedding(conditions, hidden) if conditions else None
        layers: list[nn.Module] = []
        for (channels, narrower), stride in zip(pairwise(widths), strides, strict=True):
            layers.append(nn.Sequential(Snake(channels), up(channels, narrower, stride), *units(narrower)))
        layers += [Snake(widths[-1]), convolution(widths[-1], likelihood.channels, KERNEL, gain=SPEECH)]
        self.network = nn.Sequential(*layers, *([nn.Tanh()] if tanh else []))
        self.context = decoder_context(prod(strides), [self.proj_in, self.network])

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        """z ``(batch, dim, codes)``."""
        h = add_conditions(self.proj_in(z), self.conditions, conditions)
        return self.likelihood(self.network(h))
