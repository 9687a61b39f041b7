"""The quantizer of the VQ-VAE paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import torch
from torch import Tensor, nn

from toolkit.device import in_float32
from toolkit.distributed import all_reduce_sum
from toolkit.nn import codebook as table
from toolkit.nn.codebook import CodebookSize, Commitment
from toolkit.nn.codebook_init import CodebookInit, DeadCodeThreshold, Init, NewEntries, random_entries
from toolkit.nn.entropy import Entropy, EntropyRegularizer, EntropyTemperature
from toolkit.nn.lookup import Compare, LearnedGradient, Lookup, Normalize, nearest
from toolkit.nn.tables import Assigned, TableQuantizer, stacked, write
from toolkit.quantizer import Quantized

DECAY = 0.99
"""Decay of the counts that decide which entries are revived."""


@final
class VectorQuantizer(TableQuantizer):
    """Nearest entry of a learned codebook, straight-through gradient (van den Oord et al. 2017, eq. 1-3).

    The loss is ``|sg[z] - e|^2 + commitment * |z - sg[e]|^2``, each norm summed over dim and averaged over
    positions, so that ``commitment`` is the paper's beta at any dim. Computed in at least float32. With
    ``compare=direction`` it is the quantizer of DAC (Kumar et al. 2023, arXiv:2306.06546). With ``gradient=direction``
    entries learn from what comes after, and there is no such loss (DiVeQ).
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
        gradient: LearnedGradient = "straight_through",
        normalize: Normalize = False,
        compare: Compare = "distance",
        entropy: Entropy = 0.0,
        entropy_temperature: EntropyTemperature = 1.0,
    ) -> None:
        super().__init__()
        self.channels = self.dim = dim
        self.codebook_sizes = table.single(codebook_size)
        self.commitment = commitment
        self.init = CodebookInit(init, dead_code_threshold)
        self.lookup = Lookup(gradient, normalize, compare)
        self.entropy = EntropyRegularizer(entropy, entropy_temperature)
        self.initialized: Tensor
        self.counts: Tensor  # kept without a dead_code_threshold, too, so that it can be set later
        self.register_buffer("initialized", torch.tensor(False))
        self.codebook = nn.Parameter(random_entries(codebook_size, dim))
        self.register_buffer("counts", torch.ones(codebook_size))
        self.register_load_state_dict_post_hook(self.init.mirror)

    def assign(self, parts: Sequence[Self], z: Tensor) -> tuple[Quantized, Assigned]:
        with in_float32(z.device):
            z = self.lookup.latents(z, self.codebook)
            rows = table.per_table(z, len(parts))
            entries = self.lookup.entries(stacked([part.codebook for part in parts]))

            # Equation 1: the code is the nearest entry's. Equation 2: that entry replaces the latent.
            compared = self.lookup.compared(rows, entries)
            assignments = nearest(compared[0].detach(), compared[1])
            codes = table.unflatten(assignments, z)
            e = table.look_up(codes, entries)

            # Equation 3, without the likelihood: moves the entry to the latent, and keeps the latent near the entry.
            distance = table.distance(z, e.detach())
            moved = table.distance(z.detach(), e) if torch.is_grad_enabled() else distance  # the same, as a value
            loss = moved + self.commitment * distance
            if self.lookup.by_direction:
                loss = torch.zeros_like(loss)
            if self.training and self.entropy.weight:
                loss = loss + table.per_example(self.entropy(*compared), z)

            kl = table.uniform_kl(z, entries.shape[1])
            metrics = {"quantization_error": distance.detach().mean()}
            quantized = Quantized(self.lookup.past(z, e, self.training), codes, loss, kl, metrics)
            return quantized, Assigned(rows.detach(), assignments)

    def embed(self, codes: Tensor) -> Tensor:
        with in_float32(codes.device):
            return table.look_up(codes, self.lookup.entries(self.codebook))

    def likeness(self) -> tuple[object, ...] | None:
        if self.training and (self.lookup.by_direction or not self.init.begun):
            return None
        options = self.commitment, self.init.dead_code_threshold, self.lookup.likeness(), self.entropy.likeness()
        return self.codebook.shape, self.training, *options

    @torch.no_grad()
    def refresh(self, parts: Sequence[Self], z: Tensor) -> None:
        if self.init.begun and not self.init.dead_code_threshold:
            return
        with in_float32(z.device):
            rows = table.per_table(self.lookup.latents(z, self.codebook), len(parts))
            if not self.init.begun:
                self._set_entries(parts, self.init.begin(rows, stacked([self.codebook]), self.initialized))
            if self.init.dead_code_threshold > 0:
                self._set_entries(parts, self.init.revive(rows, stacked([part.counts for part in parts])))

    @torch.no_grad()
    def _set_entries(self, parts: Sequence[Self], new: NewEntries) -> None:
        codebooks, counts = [part.codebook for part in parts], [part.counts for part in parts]
        write(codebooks, torch.where(new.where.unsqueeze(2), new.entries, stacked(codebooks)))
        write(counts, stacked(counts).masked_fill(new.where, new.expected_count))

    @torch.no_grad()
    def learn(self, parts: Sequence[Self], assigned: Assigned) -> None:
        """The moving averages of how many latents of a batch are assigned to each entry."""
        counts = [part.counts for part in parts]
        averages = stacked(counts)
        numbers = table.numbered(assigned.entries, averages.shape[1]).flatten()
        batch = torch.zeros_like(averages)
        batch.view(-1).index_add_(0, numbers, torch.ones_like(numbers, dtype=batch.dtype))
        all_reduce_sum(batch)
        write(counts, averages.lerp(batch, 1 - DECAY))
