"""A frozen random codebook behind one learned linear map."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from toolkit.device import in_float32
from toolkit.nn import codebook as table
from toolkit.nn.codebook import CodebookSize, Commitment
from toolkit.nn.entropy import Entropy, EntropyRegularizer, EntropyTemperature
from toolkit.nn.lookup import Gradient, Lookup, Normalize, nearest
from toolkit.quantizer import Quantized, Quantizer


@final
class SimVQQuantizer(Quantizer):
    """Entries are ``C W``: C random and frozen, W learned (Zhu et al. 2024, "Addressing Representation Collapse in
    Vector Quantized Models with One Linear Layer").

    Each latent's gradient moves W, and with it all entries, not only the nearest, so that none is left unused.
    The loss is ``|sg[z] - e|^2 + commitment * |z - sg[e]|^2``, summed over dim and averaged over positions. Computed in
    at least float32.
    """

    depth = 1

    def __init__(
        self,
        dim: int,
        *,
        codebook_size: CodebookSize = 512,
        commitment: Commitment = 0.25,
        gradient: Gradient = "straight_through",
        normalize: Normalize = False,
        entropy: Entropy = 0.0,
        entropy_temperature: EntropyTemperature = 1.0,
    ) -> None:
        super().__init__()
        self.channels = self.dim = dim
        self.codebook_sizes = table.single(codebook_size)
        self.commitment = commitment
        self.lookup = Lookup(gradient, normalize)
        self.entropy = EntropyRegularizer(entropy, entropy_temperature)
        self.codebook: Tensor
        self.register_buffer("codebook", torch.randn(codebook_size, dim) / dim**0.5)
        self.linear = nn.Linear(dim, dim, bias=False)

    def forward(self, z: Tensor) -> Quantized:
        with in_float32(z.device):
            z = self.lookup.latents(z, self.codebook)
            rows = table.flatten(z)
            entries = self.lookup.entries(self.linear(self.codebook))
            assignments = nearest(rows.detach(), entries)
            codes = table.unflatten(assignments, z)
            e = table.look_up(codes, entries)

            distance = table.distance(z, e.detach())
            loss = table.distance(z.detach(), e) + self.commitment * distance
            if self.training and self.entropy.weight:
                loss = loss + self.entropy(rows, entries)

            kl = table.uniform_kl(z, len(entries))
            metrics = {"quantization_error": distance.detach().mean()}
            return Quantized(self.lookup.gradient(z, e), codes, loss, kl, metrics)

    def embed(self, codes: Tensor) -> Tensor:
        with in_float32(codes.device):
            return table.look_up(codes, self.lookup.entries(self.linear(self.codebook)))
