"""The quantizer of the VQ-VAE paper."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from toolkit.nn import codebook as table
from toolkit.quantizer import Quantized, Quantizer


@final
class VectorQuantizer(Quantizer):
    """Nearest entry of a learned codebook, straight-through gradient (van den Oord et al. 2017, eq. 1-3).

    The loss is ``|sg[z] - e|^2 + commitment * |z - sg[e]|^2``, each norm summed over dim and averaged over
    positions, so that ``commitment`` is the paper's beta at any dim.

    Args:
        codebook_size: entries of the codebook, K.
        commitment: beta; the paper finds no change between 0.1 and 2.
        data_init: the first training batch's latents become the codebook. That it happened is part of the state.
    """

    depth = 1

    def __init__(self, dim: int, *, codebook_size: int = 512, commitment: float = 0.25, data_init: bool = True) -> None:
        super().__init__()
        if codebook_size < 1:
            raise ValueError(f"codebook_size={codebook_size}: at least 1")
        self.channels = self.dim = dim
        self.codebook_sizes = (codebook_size,)
        self.commitment = commitment
        self.codebook = nn.Parameter(torch.empty(codebook_size, dim).uniform_(-1, 1) / codebook_size)
        self.initialised: Tensor
        self.register_buffer("initialised", torch.tensor(not data_init))

    def forward(self, z: Tensor) -> Quantized:
        if self.training:
            self._initialise(z)
        codes = table.unflatten(table.nearest(table.flatten(z), self.codebook), z)
        e = self.embed(codes)
        loss = table.distance(z.detach(), e) + self.commitment * table.distance(z, e.detach())
        return Quantized(table.straight_through(z, e), codes, loss, table.uniform_kl(z, len(self.codebook)), {})

    def embed(self, codes: Tensor) -> Tensor:
        return table.look_up(codes, self.codebook)

    @torch.no_grad()
    def _initialise(self, z: Tensor) -> None:
        """Without a branch on data, so that the forward pass compiles whole."""
        drawn = table.draw_rows(table.flatten(z), len(self.codebook)).to(self.codebook)
        self.codebook.copy_(torch.where(self.initialised, self.codebook, drawn))
        self.initialised.fill_(True)
