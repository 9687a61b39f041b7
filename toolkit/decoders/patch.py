"""A network with one hidden layer, applied to every latent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from torch import Tensor, nn

from toolkit.decoder import Decoder
from toolkit.likelihood import Distribution, Likelihood
from toolkit.nn.conditioning import ConditionEmbedding, over_grid
from toolkit.nn.patches import from_patches
from toolkit.ranges import PositiveInt
from toolkit.spec import Condition


@final
class PatchDecoder(Decoder):
    """The simplest decoder that upsamples: one hidden layer from a latent to its patch of the data.

    Works on any number of axes. Conditions are added before the hidden layer's ReLU.

    Args:
        patch: positions of a patch along every axis; the encoder's.
        hidden: units of the hidden layer.
    """

    context = (0, 0)

    def __init__(
        self,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
        *,
        patch: PositiveInt = 4,
        hidden: PositiveInt = 128,
    ) -> None:
        super().__init__()
        if patch < 1:
            raise ValueError(f"patch={patch}: at least 1")
        self.likelihood, self.patch = likelihood, patch
        self.proj_in = nn.Linear(dim, hidden)
        self.conditions = ConditionEmbedding(conditions, hidden) if conditions else None
        self.out = nn.Linear(hidden, likelihood.channels * patch ** len(grid))

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        """z ``(batch, dim, *grid)``."""
        h = self.proj_in(z.movedim(1, -1))
        if self.conditions is not None:
            h = h + over_grid(self.conditions(conditions, z.shape[0]), z.shape[2:]).movedim(1, -1).to(h)
        return self.likelihood(from_patches(self.out(h.relu()), self.patch))
