"""A fixed table: the shortest vectors of a lattice, as directions."""

from __future__ import annotations

from typing import Annotated, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Doc

from toolkit.nn import codebook as table
from toolkit.nn import minimal_vectors
from toolkit.nn.lattice import fixed
from toolkit.nn.lattice_search import LatticeSearch
from toolkit.quantizer import Quantized, Quantizer

LATTICES = {"leech": minimal_vectors.leech, "e8": minimal_vectors.e8}

Points = Annotated[
    Literal["leech", "e8"],
    Doc("leech: 196560 directions of 24 channels, 17.6 bits a code; e8: 240 of 8 channels, 7.9 bits."),
]


@final
class LatticeQuantizer(Quantizer):
    """Latents on the unit sphere map to the nearest of the Leech lattice's 196560 shortest vectors, or E8's 240 (Zhao
    et al. 2025, arXiv:2512.14697).

    As many points cannot lie farther apart on the sphere: nothing is learned, latents of all directions use all codes,
    and there is no loss. Codes are found by the lattice's structure, not by a search of the table: the nearest exactly,
    the lowest of equally near ones. Computed in at least float32.

    Ignores the dim of the configuration: its latents have 24 or 8 channels, before and after.

    Args:
        points: of which lattice.
    """

    depth = 1

    def __init__(self, *, points: Points = "leech") -> None:
        super().__init__()
        if points not in LATTICES:
            raise ValueError(f"points={points}: one of {', '.join(LATTICES)}")
        lattice = LATTICES[points]()
        self.search = LatticeSearch(lattice)
        self.channels = self.dim = lattice.dim
        self.vectors: Tensor
        self.unit: Tensor
        self.register_buffer("vectors", minimal_vectors.vectors(lattice), persistent=False)
        self.register_buffer("unit", torch.tensor(1 / lattice.length), persistent=False)
        self.codebook_sizes = (self.vectors.shape[0],)

    def forward(self, z: Tensor) -> Quantized:
        z = table.upcast(z)
        codes = table.unflatten(self.search(table.flatten(z)), z)
        u = F.normalize(z, dim=1)
        return fixed(u, self.embed(codes).to(u.dtype), codes, self.codebook_sizes[0])

    def embed(self, codes: Tensor) -> Tensor:
        return (self.vectors[codes.squeeze(1)] * self.unit).movedim(-1, 1)
