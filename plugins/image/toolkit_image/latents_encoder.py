"""Some codes for all of an image, which learned queries read out of its patches."""

from __future__ import annotations

from typing import Annotated, final

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from toolkit import DataSpec, Encoder
from toolkit.nn.patches import to_patches
from toolkit.ranges import PositiveInt
from toolkit_image.vit_blocks import Heads, Hidden, Layers, Patch, SinePositions, Transformer, patch_grid

Latents = Annotated[PositiveInt, Doc("of an image, whatever its size: the positions of the latents' grid.")]


@final
class LatentsEncoder(Encoder):
    """Learned queries beside the patches in one transformer; what becomes of the queries are the latents (TiTok, Yu et
    al. 2024, section 3.2).

    These belong to no place in the image. Their grid is ``(latents, 1)``. The defaults are the paper's S-128, of 256 x
    256 pixels; B-64 has hidden=768, layers=12, heads=12, and L-32 has hidden=1024, layers=24, heads=16.
    """

    rank = 2

    def __init__(
        self,
        data: DataSpec,
        dim: int,
        *,
        latents: Latents = 128,
        patch: Patch = 16,
        hidden: Hidden = 512,
        layers: Layers = 8,
        heads: Heads = 8,
    ) -> None:
        super().__init__()
        self.data, self.patch, self.latents = data, patch, latents
        self.positions = SinePositions(patch_grid(data, patch), hidden)
        self.proj_in = nn.Linear(data.channels * patch**2, hidden)
        self.queries = nn.Parameter(torch.randn(latents, hidden) * hidden**-0.5)
        self.transformer = Transformer(hidden, layers, heads)
        self.out = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """x ``(batch, channels, height, width)`` to ``(batch, dim, latents, 1)``."""
        patches = self.proj_in(to_patches(self.data.scale(x), self.patch))
        placed = patches.flatten(1, 2) + self.positions((patches.shape[1], patches.shape[2]))
        queries = self.queries.to(placed).expand(len(x), -1, -1)
        h = self.transformer(torch.cat([placed, queries], 1))
        z: Tensor = self.out(h[:, -self.latents :])
        return z.transpose(1, 2).unsqueeze(3)
