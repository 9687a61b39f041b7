"""A transformer to the patches of an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from torch import Tensor, nn

from toolkit import Condition, Decoder, Distribution, Likelihood
from toolkit.nn.conditioning import ConditionEmbedding, add_conditions
from toolkit.nn.patches import from_patches
from toolkit_image.vit_blocks import Heads, Hidden, Layers, Patch, SinePositions, Transformer


@final
class VitDecoder(Decoder):
    """A transformer over all latents, and a patch of the image from each (ViT-VQGAN, Yu et al. 2021, section 3.1).

    The mirror of the encoder ``image_vit``, whose options it shares. Conditions are embedded and added before the
    first block.
    """

    rank = 2

    def __init__(
        self,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
        *,
        patch: Patch = 8,
        hidden: Hidden = 512,
        layers: Layers = 8,
        heads: Heads = 8,
    ) -> None:
        super().__init__()
        self.likelihood, self.patch = likelihood, patch
        self.positions = SinePositions((grid[-2], grid[-1]), hidden)
        self.proj_in = nn.Conv2d(dim, hidden, 1)
        self.conditions = ConditionEmbedding(conditions, hidden) if conditions else None
        self.transformer = Transformer(hidden, layers, heads)
        self.out = nn.Linear(hidden, likelihood.channels * patch**2)

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        """z ``(batch, dim, height, width)``."""
        h = add_conditions(self.proj_in(z), self.conditions, conditions)
        grid = h.shape[2], h.shape[3]
        h = self.transformer(h.flatten(2).transpose(1, 2) + self.positions(grid))
        return self.likelihood(from_patches(self.out(h).unflatten(1, grid), self.patch))
