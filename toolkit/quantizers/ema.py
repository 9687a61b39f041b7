"""A codebook updated by moving averages instead of a gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import torch
from torch import Tensor

from toolkit.device import in_float32
from toolkit.nn import codebook as table
from toolkit.nn.codebook import CodebookSize, Commitment
from toolkit.nn.codebook_init import CodebookInit, DeadCodeThreshold, Init, random_entries
from toolkit.nn.entropy import Entropy, EntropyRegularizer, EntropyTemperature
from toolkit.nn.lookup import Gradient, Lookup, Normalize, nearest
from toolkit.nn.tables import Assigned, TableQuantizer, stacked, write
from toolkit.quantizer import Quantized
from toolkit.ranges import Decay


@final
class EMAQuantizer(TableQuantizer):
    """Entries are moving averages of the latents assigned to them (van den Oord et al. 2017, appendix A.1).

    Per entry i, with n_i latents of the batch assigned to it::

        N_i <- decay N_i + (1 - decay) n_i
        m_i <- decay m_i + (1 - decay) sum of these latents
        e_i  = m_i / N_i

    N_i starts at the expected count, latents per batch / codebook_size. An entry with no latent stays where it is. One
    whose N_i falls below ``dead_code_threshold`` times the expected count is revived at a latent of the batch; entry,
    sum and count are set together after the averages are updated, so that the step does not undo it. Statistics are
    float32, over the latents of all ranks. The loss is ``commitment *
    |z - sg[e]|^2``, summed over dim and averaged over positions. Computed in at least float32.

    Args:
        decay: gamma, the decay of the averages.
    """

    depth = 1

    def __init__(
        self,
        dim: int,
        *,
        codebook_size: CodebookSize = 512,
        commitment: Commitment = 0.25,
        decay: Decay = 0.99,
        init: Init = "data",
        dead_code_threshold: DeadCodeThreshold = 0.1,
        gradient: Gradient = "straight_through",
        normalize: Normalize = False,
        entropy: Entropy = 0.0,
        entropy_temperature: EntropyTemperature = 1.0,
    ) -> None:
        super().__init__()
        self.channels = self.dim = dim
        self.codebook_sizes = table.single(codebook_size)
        self.commitment, self.decay = commitment, decay
        self.init = CodebookInit(init, dead_code_threshold)
        self.lookup = Lookup(gradient, normalize, learned=False)
        self.entropy = EntropyRegularizer(entropy, entropy_temperature)
        self.initialized: Tensor
        self.codebook: Tensor
        self.counts: Tensor
        self.sums: Tensor
        entries = random_entries(codebook_size, dim)
        self.register_buffer("initialized", torch.tensor(False))
        self.register_buffer("codebook", entries)
        self.register_buffer("counts", torch.ones(codebook_size))
        self.register_buffer("sums", entries.clone())
        self.register_load_state_dict_post_hook(self.init.mirror)

    def assign(self, parts: Sequence[Self], z: Tensor) -> tuple[Quantized, Assigned]:
        with in_float32(z.device):
            z = self.lookup.latents(z, self.codebook)
            rows = table.per_table(z, len(parts))
            entries = self.lookup.entries(stacked([part.codebook for part in parts]))

            # Equation 1: the code is the nearest entry's. Equation 2: that entry replaces the latent.
            assignments = nearest(rows.detach(), entries)
            codes = table.unflatten(assignments, z)
            e = table.look_up(codes, entries)

            # Equation 3, last term: keeps the latent near the entry. The averages move the entry to the latent.
            distance = table.distance(z, e.detach())
            loss = self.commitment * distance
            if self.training and self.entropy.weight:
                loss = loss + table.per_example(self.entropy(rows, entries), z)

            kl = table.uniform_kl(z, entries.shape[1])
            metrics = {"quantization_error": distance.detach().mean()}
            quantized = Quantized(self.lookup.gradient(z, e), codes, loss, kl, metrics)
            return quantized, Assigned(rows.detach(), assignments)

    def embed(self, codes: Tensor) -> Tensor:
        with in_float32(codes.device):
            return table.look_up(codes, self.lookup.entries(self.codebook))

    def likeness(self) -> tuple[object, ...] | None:
        if self.training and not self.init.begun:
            return None
        options = self.commitment, self.init.dead_code_threshold, self.lookup.likeness(), self.entropy.likeness()
        return self.codebook.shape, self.training, self.decay, *options

    @torch.no_grad()
    def refresh(self, parts: Sequence[Self], z: Tensor) -> None:
        """At first all entries, with their sums and counts, of a quantizer by itself."""
        if self.init.begun:
            return
        with in_float32(z.device):
            rows = table.per_table(self.lookup.latents(z, self.codebook), len(parts))
            new = self.init.begin(rows, stacked([self.codebook]), self.initialized)
            write([self.codebook], new.entries)
            write([self.sums], new.expected_count * new.entries)
            self.counts.fill_(new.expected_count)

    @torch.no_grad()
    def learn(self, parts: Sequence[Self], assigned: Assigned) -> None:
        """The averages of appendix A.1, then revives dead entries."""
        codebook = stacked([part.codebook for part in parts])
        counts, sums = table.count_assignments(assigned.entries, assigned.rows, codebook.shape[1])
        # Sum and count of an entry with no latent shrink alike until they underflow; it must not become 0 / 0.
        taken = (counts > 0).unsqueeze(2)
        counts = stacked([part.counts for part in parts]).lerp(counts, 1 - self.decay)
        sums = stacked([part.sums for part in parts]).lerp(sums, 1 - self.decay)
        entries = torch.where(taken, sums / counts.unsqueeze(2), codebook)
        if self.init.dead_code_threshold > 0:
            new = self.init.revive(assigned.rows, counts)
            where = new.where.unsqueeze(2)
            entries = torch.where(where, new.entries, entries)
            sums = torch.where(where, new.expected_count * new.entries, sums)
            counts = counts.masked_fill(new.where, new.expected_count)
        write([part.codebook for part in parts], entries)
        write([part.sums for part in parts], sums)
        write([part.counts for part in parts], counts)
