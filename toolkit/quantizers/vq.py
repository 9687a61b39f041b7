"""The quantizer of the VQ-VAE paper."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from toolkit.device import in_float32
from toolkit.distributed import all_reduce_sum
from toolkit.nn import codebook as table
from toolkit.nn.codebook import CodebookSize, Commitment
from toolkit.nn.codebook_init import CodebookInit, DeadCodeThreshold, Init, NewEntries, random_entries
from toolkit.nn.entropy import Entropy, EntropyRegularizer, EntropyTemperature
from toolkit.nn.lookup import Gradient, Lookup, Normalize, nearest
from toolkit.quantizer import Quantized, Quantizer

DECAY = 0.99
"""Decay of the counts that decide which entries are revived."""


@final
class VectorQuantizer(Quantizer):
    """Nearest entry of a learned codebook, straight-through gradient (van den Oord et al. 2017, eq. 1-3).

    The loss is ``|sg[z] - e|^2 + commitment * |z - sg[e]|^2``, each norm summed over dim and averaged over
    positions, so that ``commitment`` is the paper's beta at any dim. Computed in at least float32.
    """

    depth = 1

    def __init__(
        self,
        dim: int,
        *,
        codebook_size: CodebookSize = 512,
        commitment: Commitment = 0.25,
        init: Init = "data",
        dead_code_threshold: DeadCodeThreshold = 0.0,
        gradient: Gradient = "straight_through",
        normalize: Normalize = False,
        entropy: Entropy = 0.0,
        entropy_temperature: EntropyTemperature = 1.0,
    ) -> None:
        super().__init__()
        self.channels = self.dim = dim
        self.codebook_sizes = table.single(codebook_size)
        self.commitment = commitment
        self.init = CodebookInit(init, dead_code_threshold)
        self.lookup = Lookup(gradient, normalize)
        self.entropy = EntropyRegularizer(entropy, entropy_temperature)
        self.initialized: Tensor
        self.counts: Tensor  # kept without a dead_code_threshold, too, so that it can be set later
        self.register_buffer("initialized", torch.tensor(False))
        self.codebook = nn.Parameter(random_entries(codebook_size, dim))
        self.register_buffer("counts", torch.ones(codebook_size))
        self.register_load_state_dict_post_hook(self.init.mirror)

    def forward(self, z: Tensor) -> Quantized:
        with in_float32(z.device):
            z = self.lookup.latents(z, self.codebook)
            rows = table.flatten(z)
            if self.training:
                self._refresh(rows.detach())
            entries = self.lookup.entries(self.codebook)

            # Equation 1: the code is the nearest entry's. Equation 2: that entry replaces the latent.
            assignments = nearest(rows.detach(), entries)
            codes = table.unflatten(assignments, z)
            e = table.look_up(codes, entries)

            # Equation 3, without the likelihood: moves the entry to the latent, and keeps the latent near the entry.
            distance = table.distance(z, e.detach())
            loss = table.distance(z.detach(), e) + self.commitment * distance
            if self.training:
                if self.entropy.weight:
                    loss = loss + self.entropy(rows, entries)
                self._count(assignments)

            kl = table.uniform_kl(z, len(entries))
            metrics = {"quantization_error": distance.detach().mean()}
            return Quantized(self.lookup.gradient(z, e), codes, loss, kl, metrics)

    def embed(self, codes: Tensor) -> Tensor:
        with in_float32(codes.device):
            return table.look_up(codes, self.lookup.entries(self.codebook))

    @torch.no_grad()
    def _refresh(self, rows: Tensor) -> None:
        """Initializes and revives entries, before the lookup: after it, they must not change until their gradient."""
        if not self.init.begun:
            self._set_entries(self.init.begin(rows, self.codebook, self.initialized))
        if self.init.dead_code_threshold > 0:
            self._set_entries(self.init.revive(rows, self.counts))

    @torch.no_grad()
    def _set_entries(self, new: NewEntries) -> None:
        self.codebook.copy_(torch.where(new.where.unsqueeze(1), new.entries, self.codebook))
        self.counts.masked_fill_(new.where, new.expected_count)

    @torch.no_grad()
    def _count(self, assignments: Tensor) -> None:
        """The moving average of how many latents of a batch are assigned to each entry."""
        ones = torch.ones_like(assignments, dtype=self.counts.dtype)
        counts = torch.zeros_like(self.counts).index_add_(0, assignments, ones)
        all_reduce_sum(counts)
        self.counts.lerp_(counts, 1 - DECAY)
