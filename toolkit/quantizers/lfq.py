"""A fixed lattice: the sign of every channel."""

from __future__ import annotations

from typing import final

from torch import Tensor

from toolkit.nn import codebook as table
from toolkit.nn import signs
from toolkit.nn.lattice import fixed
from toolkit.nn.signs import Bits, Diversity, EntropyWeight, Heads, Temperature
from toolkit.quantizer import Quantized, Quantizer
from toolkit.ranges import NonNegative


@final
class LFQQuantizer(Quantizer):
    """Each channel becomes its sign, 1 or -1, without a lookup (LFQ, MAGVIT-v2, Yu et al. 2023).

    The signs of a head's channels are the bits of its code, so that a vocabulary of 2^18 is, for a prior, two of 2^9.
    In training the loss is, with codes given z distributed as ``exp(-|z - e|^2 / temperature)``::

        commitment * |z - sg[e]|^2 + entropy * (E[H(codes given z)] - diversity * H(E[codes given z]))

    The norm is summed over channels and averaged over positions; entropies are in nats, summed over heads; E is over
    positions, in the first entropy those of the example, in the second those of the batch on all ranks, where it
    averages distributions over a head's codes. In eval mode the entropy terms are left out, since they depend on the
    batch. Computed in at least float32.

    Ignores the dim of the configuration: its latents have one channel per bit, before and after.

    Args:
        commitment: weight of the distance to the signs.
    """

    def __init__(
        self,
        *,
        bits: Bits = 18,
        heads: Heads = 2,
        commitment: NonNegative = 0.25,
        entropy: EntropyWeight = 0.1,
        diversity: Diversity = 1.0,
        temperature: Temperature = 0.01,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature={temperature}: above 0")
        self.signs = signs.SignCodes(bits, heads, unit=1.0)
        self.channels = self.dim = bits
        self.depth, self.codebook_sizes = heads, self.signs.codebook_sizes
        self.commitment, self.entropy, self.diversity = commitment, entropy, diversity
        self.temperature = temperature

    def forward(self, z: Tensor) -> Quantized:
        z = table.upcast(z)
        e = self.signs.nearest(z)
        loss = self.commitment * table.distance(z, e)
        if self.training and self.entropy:
            logits = z * (4 / self.temperature)  # |z + 1|^2 - |z - 1|^2 = 4 z
            sure, even = signs.code_entropy(logits), signs.mean_code_entropy(logits, self.depth)
            loss = loss + self.entropy * (sure - self.diversity * even)
        return fixed(z, e, self.signs.codes(z), 2**self.dim)._replace(loss=loss)

    def embed(self, codes: Tensor) -> Tensor:
        """The latents of the first heads; channels of heads whose codes are missing are 0."""
        return self.signs.embed(codes)
