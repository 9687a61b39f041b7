"""The decoder of Mimi."""

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
from toolkit_audio.causal_conv import KERNEL, LAST_KERNEL, CausalConv, CausalUp, Dilations, causal_units
from toolkit_audio.sliding_transformer import MLP, Heads, Layers, SlidingTransformer, Window
from toolkit_audio.starts import SPEECH


@final
class MimiDecoder(Decoder):
    """The mirror of Mimi's encoder: one stride up, the transformer, and SEANet's decoder; causal.

    Mimi (Défossez et al. 2024, arXiv:2410.00037, 3.3), whose sizes are the defaults, with ``dim=512``. Conditions are
    embedded and added to what the transformer reads.

    Args:
        hidden: channels after the last stride, each of which halves them.
        strides: of the transposed convolutions, of window 2 * stride, from the latents up.
        up: stride of the transposed convolution before the transformer, of each channel by itself.
    """

    rank = 1

    def __init__(
        self,
        dim: int,
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
        *,
        hidden: PositiveInt = 64,
        strides: tuple[PositiveInt, ...] = (8, 6, 5, 4),
        up: PositiveInt = 2,
        dilations: Dilations = (1,),
        layers: Layers = 8,
        heads: Heads = 8,
        window: Window = 250,
        mlp: MLP = 2048,
    ) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.up = CausalUp(dim, dim, up, groups=dim, bias=False)
        self.conditions = ConditionEmbedding(conditions, dim) if conditions else None
        self.transformer = SlidingTransformer(dim, layers=layers, heads=heads, window=window, mlp=mlp)
        widths = [hidden * 2**k for k in reversed(range(len(strides) + 1))]
        network: list[nn.Module] = [CausalConv(dim, widths[0], KERNEL)]
        for (channels, narrower), stride in zip(pairwise(widths), strides, strict=True):
            network += [nn.ELU(), CausalUp(channels, narrower, stride), *causal_units(narrower, dilations)]
        last = CausalConv(hidden, likelihood.channels, LAST_KERNEL, gain=SPEECH)
        self.network = nn.Sequential(*network, nn.ELU(), last)
        self.context = decoder_context(prod(strides) * up, [self.up, self.transformer, self.network])

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        """z ``(batch, dim, codes)``."""
        h = add_conditions(self.up(z), self.conditions, conditions)
        return self.likelihood(self.network(self.transformer(h)))
