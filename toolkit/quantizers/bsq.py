"""A fixed lattice: the corners of a cube in the unit sphere."""

from __future__ import annotations

from math import sqrt
from typing import final

import torch.nn.functional as F
from torch import Tensor

from toolkit.nn import codebook as table
from toolkit.nn import signs
from toolkit.nn.lattice import fixed
from toolkit.nn.signs import Bits, Diversity, EntropyWeight, Heads, Temperature
from toolkit.quantizer import Quantized, Quantizer


@final
class BSQQuantizer(Quantizer):
    """Latents on the unit sphere map to the nearest corner, signs / sqrt(bits) (BSQ, Zhao et al. 2024).

    With ``u = z / |z|``, and codes given u distributed as ``exp(-|u - e|^2 / temperature)``, the loss in training is::

        entropy * (E[H(codes given u)] - diversity * sum over bits of H(E[bit given u]))

    in nats; E is over positions, in the first term those of the example, in the second those of the batch on all ranks.
    The second entropy treats the bits as independent, so its cost grows with the bits and not with the codes. There is
    no commitment loss: on a sphere no latent is far from its corner. In eval mode the loss is 0. Computed in at least
    float32.

    Ignores the dim of the configuration: its latents have one channel per bit, before and after.
    """

    def __init__(
        self,
        *,
        bits: Bits = 18,
        heads: Heads = 2,
        entropy: EntropyWeight = 0.1,
        diversity: Diversity = 1.0,
        temperature: Temperature = 0.01,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature={temperature}: above 0")
        self.signs = signs.SignCodes(bits, heads, unit=1 / sqrt(max(1, bits)))
        self.channels = self.dim = bits
        self.depth, self.codebook_sizes = heads, self.signs.codebook_sizes
        self.entropy, self.diversity, self.temperature = entropy, diversity, temperature

    def forward(self, z: Tensor) -> Quantized:
        u = F.normalize(table.upcast(z), dim=1)
        quantized = fixed(u, self.signs.nearest(u), self.signs.codes(u), 2**self.dim)
        if not (self.training and self.entropy):
            return quantized
        logits = u * (4 * self.signs.unit / self.temperature)  # |u + unit|^2 - |u - unit|^2 = 4 unit u
        sure, even = signs.code_entropy(logits), signs.mean_bit_entropy(logits)
        return quantized._replace(loss=self.entropy * (sure - self.diversity * even))

    def embed(self, codes: Tensor) -> Tensor:
        """The latents of the first heads; channels of heads whose codes are missing are 0."""
        return self.signs.embed(codes)
