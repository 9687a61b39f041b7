"""A PixelCNN over the data as the decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from toolkit.causal.distribution import AutoregressiveDistribution
from toolkit.causal.network import CausalNetwork
from toolkit.causal.pixelcnn import PixelCNN
from toolkit.decoder import Decoder
from toolkit.likelihoods.categorical import require_levels
from toolkit.nn.conditioning import ConditionEmbedding, over_grid
from toolkit.nn.conv import conv
from toolkit.ranges import Fraction, PositiveInt
from toolkit.spec import Condition, DataSpec


@final
class PixelCNNDecoder(Decoder):
    """A gated PixelCNN over x, conditioned on the latents at every position (van den Oord et al. 2017, section 4.2).

    Works on one to three axes of data with levels, ordered or not, and needs no likelihood. Latents are repeated to the
    data's axes and joined by each position's coordinates, so that few latents, or a single one, can have different
    effects at different positions (Watters et al. 2019, arXiv:1901.07017). Sampling is position by position.

    Args:
        hidden: channels of the stacks.
        layers: layers per stack.
        kernel_size: each layer sees ``kernel_size // 2`` positions further.
        head: channels before the output layer.
        dropout: share of the layers' channels that training drops.
        condition_dropout: share of the training examples that have no conditions.
    """

    coordinates: Tensor

    def __init__(
        self,
        data: DataSpec,
        dim: int,
        conditions: tuple[Condition, ...],
        *,
        hidden: PositiveInt = 128,
        layers: PositiveInt = 10,
        kernel_size: PositiveInt = 5,
        head: PositiveInt = 256,
        dropout: Fraction = 0.0,
        condition_dropout: Fraction = 0.1,
    ) -> None:
        super().__init__()
        sizes = (require_levels(data, "choose another decoder, and likelihood=normal"),) * data.channels
        self.data, self.condition_dropout = data, condition_dropout
        self.proj_in = conv(data.rank, dim, hidden, 3)
        self.embedding = ConditionEmbedding(conditions, hidden) if conditions else None
        self.register_buffer("coordinates", coordinates(data.axes), persistent=False)
        self.placed = conv(data.rank, hidden + data.rank, hidden, 1)
        self.proj_out = conv(data.rank, hidden, hidden, 1)
        trunk = PixelCNN(
            data.rank, context=hidden, hidden=hidden, layers=layers, kernel_size=kernel_size, dropout=dropout
        )
        self.network = CausalNetwork(trunk, sizes, head=head)

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> AutoregressiveDistribution:
        """z ``(batch, dim, *grid)``."""
        cond = self.proj_in(z)
        keep = None if self.embedding is None else self.embedding.keep(len(z), self.condition_dropout)
        context = self._context(cond, conditions, keep)
        return AutoregressiveDistribution(self.network, self.data.shape, context, lambda: self._context(cond, {}, None))

    def _context(self, cond: Tensor, conditions: Mapping[str, Tensor], keep: Tensor | None) -> Tensor:
        """``(batch, hidden, *axes)``."""
        if self.embedding is not None:
            cond = cond + over_grid(self.embedding(conditions, len(cond), keep), cond.shape[2:])
        whole = F.interpolate(cond, self.data.axes)
        coordinates = self.coordinates.to(whole).expand(len(whole), -1, *self.data.axes)
        context: Tensor = self.proj_out(self.placed(torch.cat((whole, coordinates), 1)).relu())
        return context


def coordinates(axes: Sequence[int]) -> Tensor:
    """Coordinates of each position along each axis, from -1 to 1: ``(rank, *axes)``."""
    return torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, size) for size in axes), indexing="ij"))
