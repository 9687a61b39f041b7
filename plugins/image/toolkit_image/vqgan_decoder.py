"""The decoder of VQGAN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from toolkit import Condition, Decoder, Distribution, Likelihood
from toolkit.nn.conditioning import ConditionEmbedding, add_conditions
from toolkit_image.vqgan_blocks import (
    AttentionLevels,
    Bottleneck,
    Groups,
    Hidden,
    Middle,
    MiddleAttention,
    Multipliers,
    ResidualBlocks,
    check_levels,
    group_norm,
    up_levels,
)


@final
class VqganDecoder(Decoder):
    """Levels of residual blocks, each on twice the grid of the one before (Esser et al. 2021, appendix A).

    The mirror of the encoder ``image_vqgan``, whose options it shares. Conditions are embedded and added to the first
    3x3 convolution's output.
    """

    rank = 2

    def __init__(
        self,
        dim: int,
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
        *,
        hidden: Hidden = 128,
        multipliers: Multipliers = (1, 1, 2, 2, 4),
        residual_blocks: ResidualBlocks = 2,
        attention: AttentionLevels = (0,),
        middle_attention: MiddleAttention = True,
        bottleneck: Bottleneck = 256,
        groups: Groups = 32,
    ) -> None:
        super().__init__()
        check_levels(hidden, multipliers, attention, groups)
        self.likelihood = likelihood
        widths = [hidden * multiplier for multiplier in reversed((*multipliers, multipliers[-1]))]
        self.proj_in = nn.Conv2d(dim, bottleneck, 1)
        self.wide = nn.Conv2d(bottleneck, widths[0], 3, padding=1)
        self.conditions = ConditionEmbedding(conditions, widths[0]) if conditions else None
        self.middle = Middle(widths[0], groups, middle_attention)
        self.levels = up_levels(widths, residual_blocks + 1, groups, attention)
        self.norm = group_norm(groups, widths[-1])
        self.out = nn.Conv2d(widths[-1], likelihood.channels, 3, padding=1)

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        """z ``(batch, dim, height, width)``."""
        h = add_conditions(self.wide(self.proj_in(z)), self.conditions, conditions)
        h = self.levels(self.middle(h))
        return self.likelihood(self.out(F.silu(self.norm(h))))
