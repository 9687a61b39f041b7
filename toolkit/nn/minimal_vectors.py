"""The shortest vectors of the lattices E8 and Leech, by rule, and the one in the most similar direction, by rule, too.

Both lattices have vectors of these shapes, in the coordinates of Conway and Sloane (Sphere Packings, Lattices and
Groups, chapter 4), an even number of whose entries is negative in the first:

    signs on a block      E8: (±1^8)            Leech: (±2^8, 0^16) on the 759 octads of the Golay code
    signs of a codeword                         Leech: (-3, 1^23), negated where a codeword of the Golay code has ones
    pairs                 E8: (±2^2, 0^6)       Leech: (±4^2, 0^22)

and are numbered in this order, those of a block or a pair by their signs as bits, negative being 1 and the first bit
highest. That is 128 + 112 = 240, and 97152 + 98304 + 1104 = 196560.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.nn import golay


class Lattice(NamedTuple):
    """What its shortest vectors are made of."""

    dim: int
    blocks: Tensor
    """Places ``(blocks, 8)`` of the vectors with signs on a block."""
    on_block: int
    """The size of their numbers; pairs' are twice as large."""
    has_codewords: bool

    @property
    def length(self) -> float:
        """Of every vector."""
        return float(self.on_block * 8**0.5)


def e8() -> Lattice:
    return Lattice(8, torch.arange(8).view(1, 8), 1, has_codewords=False)


def leech() -> Lattice:
    return Lattice(24, golay.octads(), 2, has_codewords=True)


def vectors(lattice: Lattice) -> Tensor:
    """All of them, ``(240 or 196560, dim)``, int8."""
    shapes = [_on_blocks(lattice), _of_codewords()] if lattice.has_codewords else [_on_blocks(lattice)]
    return torch.cat([*shapes, _pairs(lattice)]).to(torch.int8)


def _on_blocks(lattice: Lattice) -> Tensor:
    seven = _signs(7)
    signs = torch.cat([seven, seven.prod(1, keepdim=True)], 1) * lattice.on_block
    made = torch.zeros(len(lattice.blocks), len(signs), lattice.dim, dtype=torch.int64)
    places = lattice.blocks.unsqueeze(1).expand(-1, len(signs), -1)
    return made.scatter(2, places, signs.expand(len(lattice.blocks), -1, -1)).flatten(0, 1)


def _of_codewords() -> Tensor:
    signs = 1 - 2 * golay.codewords()
    return (signs.unsqueeze(1) * (1 - 4 * torch.eye(24, dtype=torch.int64))).flatten(0, 1)


def _pairs(lattice: Lattice) -> Tensor:
    places = torch.combinations(torch.arange(lattice.dim))
    signs = (_signs(2) * 2 * lattice.on_block).expand(len(places), -1, -1)
    made = torch.zeros(len(places), 4, lattice.dim, dtype=torch.int64)
    return made.scatter(2, places.unsqueeze(1).expand(-1, 4, -1), signs).flatten(0, 1)


def _signs(bits: int) -> Tensor:
    """All signs ``(2^bits, bits)``, the first changing slowest."""
    shifts = torch.arange(bits - 1, -1, -1)
    return 1 - 2 * (torch.arange(2**bits).unsqueeze(1) >> shifts & 1)
