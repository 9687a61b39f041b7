"""A small transformer over the bytes of a text."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from toolkit.conditioner import Conditioner, Tokens
from toolkit.nn.attention import Block
from toolkit.nn.rotary import RotaryPositions
from toolkit.ranges import Fraction, PositiveInt
from toolkit.spec import Condition

BYTES = 256


@final
class BytesConditioner(Conditioner):
    """A transformer over the bytes of a text, trained with the prior that attends to it (bytes as in ByT5, Xue et al.
    2022, arXiv:2105.13626).

    It needs no vocabulary, and so has none to be built, kept or outgrown: any text of any language has its bytes. A
    token for the start comes before them, and is all that there is of an empty text. Positions are rotary: a byte
    sees how far before or behind it the others are.

    Args:
        hidden: channels, of its vectors too.
        layers: number of blocks.
        heads: attention heads per block.
        dropout: share of the channels of a block's residual updates that training drops.
    """

    def __init__(
        self,
        condition: Condition,
        *,
        hidden: PositiveInt = 128,
        layers: PositiveInt = 2,
        heads: PositiveInt = 4,
        dropout: Fraction = 0.0,
    ) -> None:
        super().__init__()
        self.dim = hidden
        self.start = nn.Parameter(torch.randn(hidden))
        self.table = nn.Embedding(BYTES, hidden)
        self.blocks = nn.ModuleList(Block(hidden, heads, dropout) for _ in range(layers))
        if hidden // heads % 2:
            raise ValueError(f"hidden={hidden} heads={heads}: a head needs an even number of channels")
        self.positions = RotaryPositions(1, hidden // heads)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, text: Tensor) -> Tokens:
        x = torch.cat((self.start.expand(len(text), 1, -1), self.table(text.long())), 1)
        rotation = self.positions((x.shape[1],))
        mask = torch.cat((text.new_ones(len(text), 1, dtype=torch.bool), text != 0), 1)
        for block in self.blocks:
            x = block(x, causal=False, seen=mask[:, None, None], rotation=rotation)
        return Tokens(self.norm(x), mask)
