"""A network with one hidden layer, applied to every patch."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from toolkit.encoder import Encoder
from toolkit.nn.patches import to_patches
from toolkit.ranges import PositiveInt
from toolkit.spec import DataSpec


@final
class PatchEncoder(Encoder):
    """The simplest encoder that downsamples: one hidden layer from a patch, as a vector, to its latent.

    Works on any number of axes. Patches do not overlap, so a latent depends on its own patch only; dependencies between
    patches are left to the prior.

    Args:
        patch: positions of a patch along every axis; must divide the axes.
        hidden: units of the hidden layer.
    """

    causal = True
    context = (0, 0)

    def __init__(self, data: DataSpec, dim: int, *, patch: PositiveInt = 4, hidden: PositiveInt = 128) -> None:
        super().__init__()
        if patch < 1:
            raise ValueError(f"patch={patch}: at least 1")
        if any(length % patch for length in data.axes):
            raise ValueError(
                f"patch={patch}: must divide each of this data's axes {data.axes}; the decoder needs the same"
            )
        self.data, self.patch, self.stride = data, patch, (patch,) * data.rank
        self.proj_in = nn.Linear(data.channels * patch**data.rank, hidden)
        self.out = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """x ``(batch, channels, *axes)`` to ``(batch, dim, *axes / patch)``."""
        z: Tensor = self.out(self.proj_in(to_patches(self.data.scale(x), self.patch)).relu())
        return z.movedim(-1, 1)
