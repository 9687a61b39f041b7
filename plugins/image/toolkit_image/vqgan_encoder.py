"""The encoder of VQGAN."""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from toolkit import DataSpec, Encoder
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
    down_levels,
    group_norm,
)


@final
class VqganEncoder(Encoder):
    """Levels of residual blocks, each on half the grid of the one before (Esser et al. 2021, appendix A).

    The network of taming-transformers, and of what was made from it: with other options that of LlamaGen (Sun et al.
    2024), of Janus and of diffusers' VQModel. GroupNorm and attention make a latent depend on all of the image. The
    defaults are those of f16, 16 x 16 latents of 256 x 256 pixels.
    """

    rank = 2

    def __init__(
        self,
        data: DataSpec,
        dim: int,
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
        halvings = len(multipliers) - 1
        if any(length % 2**halvings for length in data.axes):
            raise ValueError(
                f"multipliers={list(multipliers)}: axes are halved {halvings} times, so each must be a multiple of"
                f" {2**halvings}, and this data's are {data.axes}"
            )
        self.data = data
        self.proj_in = nn.Conv2d(data.channels, hidden, 3, padding=1)
        widths = [hidden, *(hidden * multiplier for multiplier in multipliers)]
        self.levels = down_levels(widths, residual_blocks, groups, attention)
        self.middle = Middle(widths[-1], groups, middle_attention)
        self.norm = group_norm(groups, widths[-1])
        self.narrow = nn.Conv2d(widths[-1], bottleneck, 3, padding=1)
        self.out = nn.Conv2d(bottleneck, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x ``(batch, channels, height, width)``."""
        h = self.middle(self.levels(self.proj_in(self.data.scale(x))))
        z: Tensor = self.out(self.narrow(F.silu(self.norm(h))))
        return z
