"""A fixed lattice: the corners of a cube inside the unit sphere."""

from __future__ import annotations

from math import sqrt
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from toolkit.nn import codebook as table
from toolkit.nn import signs
from toolkit.nn.lattice import fixed
from toolkit.quantizer import Quantized, Quantizer


@final
class BSQQuantizer(Quantizer):
    """Latents on the unit sphere become the nearest corner, signs / sqrt(bits) (BSQ, Zhao et al. 2024).

    With ``u = z / |z|``, and codes given u distributed as ``exp(-|u - e|^2 / temperature)``, the loss in training is::

        entropy * (E[H(codes given u)] - diversity * sum over bits of H(E[bit given u]))

    in nats; E is over positions, on the left those of the example, on the right those of the batch on all ranks. The
    second entropy takes the bits as independent, so its cost grows with the bits and not with the codes. There is no
    commitment: on a sphere no latent is far from its corner. In eval mode the loss is 0. Computed in at least float32.

    The dim of the configuration is not asked for: the latents have one channel per bit, before and after.

    Args:
        bits: channels of the latents; the codes of a position number 2^bits.
        heads: codes per position, of bits / heads bits each.
        entropy: weight of the entropy terms.
        diversity: gamma, the weight of the second entropy against the first.
        temperature: of the distribution in the entropy terms.
    """

    def __init__(
        self,
        *,
        bits: int = 18,
        heads: int = 2,
        entropy: float = 0.1,
        diversity: float = 1.0,
        temperature: float = 0.01,
    ) -> None:
        super().__init__()
        self.size = signs.per_head(bits, heads)
        if temperature <= 0:
            raise ValueError(f"temperature={temperature}: above 0")
        self.channels = self.dim = bits
        self.depth = heads
        self.codebook_sizes = (2**self.size,) * heads
        self.entropy, self.diversity, self.temperature = entropy, diversity, temperature
        self.unit: Tensor
        self.register_buffer("unit", torch.tensor(1 / sqrt(bits)), persistent=False)

    def forward(self, z: Tensor) -> Quantized:
        u = F.normalize(table.widen(z), dim=1)
        made = fixed(u, signs.corners(u > 0, self.unit), signs.pack(u > 0, self.depth), 2**self.dim)
        if self.training and self.entropy:
            return made._replace(loss=self.entropy * self._entropy(u))
        return made

    def embed(self, codes: Tensor) -> Tensor:
        """The latents of the first heads; channels of heads whose codes are missing are 0."""
        return signs.points(codes, self.dim, self.size, self.unit)

    def _entropy(self, u: Tensor) -> Tensor:
        logits = u * (4 * self.unit / self.temperature)  # |u + unit|^2 - |u - unit|^2 = 4 unit u
        unsure = signs.bit_entropy(logits).sum(1).flatten(1).mean(1)
        return unsure - self.diversity * signs.mean_bit_entropy(logits)
