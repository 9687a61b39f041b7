"""A transformer over patches of an image."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from toolkit import DataSpec, Encoder
from toolkit.nn.patches import to_patches
from toolkit_image.vit_blocks import Heads, Hidden, Layers, Patch, SinePositions, Transformer, patch_grid


@final
class VitEncoder(Encoder):
    """Patches as vectors, a transformer over all of them, one latent for each (ViT-VQGAN, Yu et al. 2021, section 3.1).

    Positions are sines of both axes. The defaults are the paper's Small: 32 x 32 latents of 256 x 256 pixels.
    """

    rank = 2

    def __init__(
        self,
        data: DataSpec,
        dim: int,
        *,
        patch: Patch = 8,
        hidden: Hidden = 512,
        layers: Layers = 8,
        heads: Heads = 8,
    ) -> None:
        super().__init__()
        self.data, self.patch = data, patch
        self.positions = SinePositions(patch_grid(data, patch), hidden)
        self.proj_in = nn.Linear(data.channels * patch**2, hidden)
        self.transformer = Transformer(hidden, layers, heads)
        self.out = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """x ``(batch, channels, height, width)``."""
        patches = self.proj_in(to_patches(self.data.scale(x), self.patch))
        grid = patches.shape[1], patches.shape[2]
        z: Tensor = self.out(self.transformer(patches.flatten(1, 2) + self.positions(grid)))
        latents: Tensor = z.transpose(1, 2).unflatten(2, grid)
        return latents
