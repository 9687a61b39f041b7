"""Patch by patch, a network of one hidden layer."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from toolkit.encoder import Encoder
from toolkit.nn.patches import to_patches
from toolkit.spec import DataSpec


@final
class PatchEncoder(Encoder):
    """The simplest encoder that downsamples: a patch, as one vector, goes through one hidden layer to its latent.

    Works on any number of axes. Patches do not overlap, so a latent knows its own patch and nothing else; what patches
    have in common is left to the prior.

    Args:
        patch: positions of a patch along every axis; divides the axes.
        hidden: units of the hidden layer.
    """

    causal = True

    def __init__(self, data: DataSpec, dim: int, *, patch: int = 4, hidden: int = 128) -> None:
        super().__init__()
        if patch < 1:
            raise ValueError(f"patch={patch}: at least 1")
        if any(length % patch for length in data.axes):
            raise ValueError(
                f"patch={patch}: a number that divides each of this data's axes {data.axes}, the same for the decoder"
            )
        self.data, self.patch, self.stride = data, patch, (patch,) * data.rank
        self.proj_in = nn.Linear(data.channels * patch**data.rank, hidden)
        self.out = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """x ``(batch, channels, *axes)`` to ``(batch, dim, *axes / patch)``."""
        z: Tensor = self.out(self.proj_in(to_patches(self.data.scale(x), self.patch)).relu())
        return z.movedim(-1, 1)
