"""The decoder of the neural codecs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import final

from torch import Tensor, nn

from toolkit import Condition, Decoder, Distribution, Likelihood
from toolkit.nn.conditioning import ConditionEmbedding, over_grid
from toolkit.nn.context import decoder_context
from toolkit.ranges import PositiveInt
from toolkit_audio.seanet import KERNEL, PaddedConv, PaddedUp, units


@final
class SeanetDecoder(Decoder):
    """SEANet's decoder, the mirror of its encoder: each stride halves the channels, then come three residual units.

    SoundStream (Zeghidour et al. 2021, arXiv:2107.03312). Conditions are embedded and added to the first layer's
    output.

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
    ) -> None:
        super().__init__()
        self.likelihood, self.causal = likelihood, causal
        widths = [hidden * 2**k for k in reversed(range(len(strides) + 1))]
        self.proj_in = PaddedConv(dim, widths[0], KERNEL, causal=causal)
        self.conditions = ConditionEmbedding(conditions, widths[0]) if conditions else None
        layers: list[nn.Module] = []
        for (channels, narrower), stride in zip(pairwise(widths), strides, strict=True):
            layers += [nn.ELU(), PaddedUp(channels, narrower, stride, causal=causal), *units(narrower, causal=causal)]
        self.network = nn.Sequential(*layers, nn.ELU(), PaddedConv(hidden, likelihood.channels, KERNEL, causal=causal))
        self.context = decoder_context(prod(strides), [self.proj_in, self.network])

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        """z ``(batch, dim, codes)``."""
        h = self.proj_in(z)
        if self.conditions is not None:
            h = h + over_grid(self.conditions(conditions, z.shape[0]), z.shape[2:]).to(h)
        return self.likelihood(self.network(h))
