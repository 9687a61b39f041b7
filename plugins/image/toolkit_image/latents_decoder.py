"""An image out of codes that stand for all of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from toolkit import Condition, DataSpec, Decoder, Distribution, Likelihood
from toolkit.nn.conditioning import ConditionEmbedding, over_grid
from toolkit.nn.patches import from_patches
from toolkit_image.vit_blocks import Heads, Hidden, Layers, Patch, SinePositions, Transformer, patch_grid


@final
class LatentsDecoder(Decoder):
    """A mask token for every patch beside the latents in one transformer; what becomes of the tokens are the patches
    (TiTok, Yu et al. 2024, section 3.2).

    The mirror of the encoder ``image_latents``, whose options it shares but the number of latents, which is the
    grid's. Conditions are embedded and added to the mask tokens.
    """

    rank = 2

    def __init__(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
        *,
        patch: Patch = 16,
        hidden: Hidden = 512,
        layers: Layers = 8,
        heads: Heads = 8,
    ) -> None:
        super().__init__()
        self.likelihood, self.patch, self.grid = likelihood, patch, patch_grid(data, patch)
        self.positions = SinePositions(self.grid, hidden)
        self.proj_in = nn.Linear(dim, hidden)
        latents = grid[-2] * grid[-1]
        self.places = nn.Parameter(torch.randn(latents, hidden) * hidden**-0.5)
        self.mask = nn.Parameter(torch.randn(hidden) * hidden**-0.5)
        self.conditions = ConditionEmbedding(conditions, hidden) if conditions else None
        self.transformer = Transformer(hidden, layers, heads)
        self.out = nn.Linear(hidden, likelihood.channels * patch**2)

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        """z ``(batch, dim, latents, 1)``."""
        latents = self.proj_in(z.flatten(2).transpose(1, 2)) + self.places
        masks = (self.mask + self.positions(self.grid)).to(latents).expand(len(z), -1, -1)
        if self.conditions is not None:
            known = over_grid(self.conditions(conditions, len(z)), self.grid)
            masks = masks + known.expand(-1, -1, *self.grid).flatten(2).transpose(1, 2).to(masks)
        h = self.transformer(torch.cat([masks, latents], 1))[:, : masks.shape[1]]
        return self.likelihood(from_patches(self.out(h).unflatten(1, self.grid), self.patch))
