"""A transformer over the codes at a position."""

from __future__ import annotations

from math import gcd, sqrt
from typing import Annotated, final

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from toolkit.nn.attention import Block
from toolkit.ranges import NonNegativeInt

Cache = list[tuple[Tensor, Tensor]]
"""By block, keys and values ``(rows, heads, depth, channels of a head)``."""

DepthLayers = Annotated[
    NonNegativeInt,
    Doc(
        "blocks of a transformer over the codes at a position, each seeing those before it (RQ-Transformer, Lee et al."
        " 2022, arXiv:2203.01941); 0: a code sees the sum of their embeddings, without a network."
    ),
]

HEADS = 8
"""Most attention heads; fewer where they do not divide the channels."""


@final
class DepthTransformer(nn.Module):
    """Features of each depth from those of the depths up to it: blocks of causal attention.

    The input of a depth is the position's feature and the embeddings of all earlier codes there, summed (section 3.2.2
    of the paper), and an embedding of the depth.
    """

    blocks: list[Block]

    def __init__(self, depth: int, channels: int, layers: int) -> None:
        super().__init__()
        heads = gcd(channels, HEADS)
        self.positions = nn.Parameter(torch.randn(depth, channels) / sqrt(2))
        self.blocks = nn.ModuleList(Block(channels, heads) for _ in range(layers))  # type: ignore[assignment]
        self.norm = nn.LayerNorm(channels)

    def forward(self, inputs: Tensor) -> Tensor:
        """``(depth, …, channels)`` of the same shape."""
        x = inputs.flatten(1, -2).transpose(0, 1) + self.positions
        for block in self.blocks:
            x = block(x, causal=True)
        features: Tensor = self.norm(x)
        return features.transpose(0, 1).view_as(inputs)

    def init(self, rows: int) -> Cache:
        """Of no depth yet."""
        caches = []
        for block in self.blocks:
            shape = (rows, block.heads, len(self.positions), block.hidden // block.heads)
            caches.append((self.positions.new_zeros(shape), self.positions.new_zeros(shape)))
        return caches

    def step(self, caches: Cache, inputs: Tensor, depth: int) -> Tensor:
        """``forward`` at one depth, after those before it: ``(rows, channels)``."""
        x = inputs.unsqueeze(1) + self.positions[depth]
        for block, (keys, values) in zip(self.blocks, caches, strict=True):
            x = block.extend(x, keys, values, depth)
        features: Tensor = self.norm(x)
        return features.squeeze(1)
