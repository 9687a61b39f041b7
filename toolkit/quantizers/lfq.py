"""A fixed lattice: the sign of every channel."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from toolkit.nn import codebook as table
from toolkit.nn import signs
from toolkit.nn.lattice import fixed
from toolkit.quantizer import Quantized, Quantizer


@final
class LFQQuantizer(Quantizer):
    """Each channel becomes its sign, 1 or -1, without a look-up (LFQ, MAGVIT-v2, Yu et al. 2023).

    The signs of a head's channels are the bits of its code, so that a vocabulary of 2^18 is, for a prior, two of 2^9.
    In training the loss is, with codes given z distributed as ``exp(-|z - e|^2 / temperature)``::

        commitment * |z - sg[e]|^2 + entropy * (E[H(codes given z)] - diversity * H(E[codes given z]))

    The norm is summed over channels and averaged over positions; entropies are in nats, summed over heads; E is over
    positions, on the left those of the example, on the right those of the batch on all ranks, and inside H a mean of
    distributions over a head's codes. In eval mode the entropy terms are left out, since they are a batch's.
    Computed in at least float32.

    The dim of the configuration is not asked for: the latents have one channel per bit, before and after.

    Args:
        bits: channels of the latents; the codes of a position number 2^bits.
        heads: codes per position, of bits / heads bits each.
        commitment: weight of the distance to the signs.
        entropy: weight of the entropy terms.
        diversity: gamma, the weight of the second entropy against the first.
        temperature: of the distribution in the entropy terms.
    """

    def __init__(
        self,
        *,
        bits: int = 18,
        heads: int = 2,
        commitment: float = 0.25,
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
        self.commitment, self.entropy, self.diversity = commitment, entropy, diversity
        self.temperature = temperature
        self.unit: Tensor
        self.register_buffer("unit", torch.tensor(1.0), persistent=False)

    def forward(self, z: Tensor) -> Quantized:
        z = table.widen(z)
        e = signs.corners(z > 0, self.unit)
        loss = self.commitment * table.distance(z, e)
        if self.training and self.entropy:
            loss = loss + self.entropy * self._entropy(z)
        return fixed(z, e, signs.pack(z > 0, self.depth), 2**self.dim)._replace(loss=loss)

    def embed(self, codes: Tensor) -> Tensor:
        """The latents of the first heads; channels of heads whose codes are missing are 0."""
        return signs.points(codes, self.dim, self.size, self.unit)

    def _entropy(self, z: Tensor) -> Tensor:
        logits = z * (4 / self.temperature)  # |z + 1|^2 - |z - 1|^2 = 4 z
        unsure = signs.bit_entropy(logits).sum(1).flatten(1).mean(1)
        return unsure - self.diversity * signs.mean_code_entropy(logits, self.depth)
