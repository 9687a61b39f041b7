"""A codebook updated by moving averages instead of a gradient."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from toolkit.device import in_float32
from toolkit.nn import codebook as table
from toolkit.nn.codebook import CodebookSize, Commitment
from toolkit.nn.codebook_init import CodebookInit, DeadCodeThreshold, Init, NewEntries, random_entries
from toolkit.nn.entropy import Entropy, EntropyRegularizer, EntropyTemperature
from toolkit.nn.lookup import Gradient, Lookup, Normalize, nearest
from toolkit.quantizer import Quantized, Quantizer
from toolkit.ranges import Decay


@final
class EMAQuantizer(Quantizer):
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
        self.lookup = Lookup(gradient, normalize)
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

    def forward(self, z: Tensor) -> Quantized:
        with in_float32(z.device):
            z = self.lookup.latents(z, self.codebook)
            rows = table.flatten(z)
            if self.training and not self.init.begun:
                self._set_entries(self.init.begin(rows.detach(), self.codebook, self.initialized))
            entries = self.lookup.entries(self.codebook)

            # Equation 1: the code is the nearest entry's. Equation 2: that entry replaces the latent.
            assignments = nearest(rows.detach(), entries)
            codes = table.unflatten(assignments, z)
            e = table.look_up(codes, entries)

            # Equation 3, last term: keeps the latent near the entry. The averages move the entry to the latent.
            distance = table.distance(z, e.detach())
            loss = self.commitment * distance
            if self.training:
                if self.entropy.weight:
                    loss = loss + self.entropy(rows, entries)
                self._update(rows.detach(), assignments)

            kl = table.uniform_kl(z, len(entries))
            metrics = {"quantization_error": distance.detach().mean()}
            return Quantized(self.lookup.gradient(z, e), codes, loss, kl, metrics)

    def embed(self, codes: Tensor) -> Tensor:
        with in_float32(codes.device):
            return table.look_up(codes, self.lookup.entries(self.codebook))

    @torch.no_grad()
    def _update(self, rows: Tensor, assignments: Tensor) -> None:
        """The averages of appendix A.1, then revives dead entries."""
        counts, sums = table.count_assignments(assignments, rows, len(self.codebook))
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        # Sum and count of an entry with no latent shrink alike until they underflow; it must not become 0 / 0.
        assigned = (counts > 0).unsqueeze(1)
        self.codebook.copy_(torch.where(assigned, self.sums / self.counts.unsqueeze(1), self.codebook))
        if self.init.dead_code_threshold > 0:
            self._set_entries(self.init.revive(rows, self.counts))

    @torch.no_grad()
    def _set_entries(self, new: NewEntries) -> None:
        """Sets entries, sums and counts together."""
        where = new.where.unsqueeze(1)
        self.codebook.copy_(torch.where(where, new.entries, self.codebook))
        self.sums.copy_(torch.where(where, new.expected_count * new.entries, self.sums))
        self.counts.masked_fill_(new.where, new.expected_count)
