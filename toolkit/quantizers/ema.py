"""A codebook that follows moving averages instead of a gradient."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from toolkit.nn import codebook as table
from toolkit.quantizer import Quantized, Quantizer


@final
class EMAQuantizer(Quantizer):
    """Entries are moving averages of the latents they won (van den Oord et al. 2017, appendix A.1).

    Per entry i, with n_i latents won in the batch::

        N_i <- decay N_i + (1 - decay) n_i
        m_i <- decay m_i + (1 - decay) sum of the latents won
        e_i  = m_i / N_i

    An entry starts with the fair share for its N_i: latents per batch / codebook_size. One that wins nothing keeps its
    place. One whose N_i falls below ``restart`` times the fair share starts again at a latent of the batch, with table,
    sum and count set together after the averages are written, so that the restart survives the step it is made in.
    Statistics are float32.

    Args:
        codebook_size: entries of the codebook, K.
        commitment: beta, the weight of ``|z - sg[e]|^2`` (summed over dim, averaged over positions).
        decay: gamma of the averages.
        restart: share of the fair share below which an entry starts again; 0 never restarts.
        data_init: the first training batch's latents become the codebook. That it happened is part of the state.
    """

    depth = 1

    def __init__(
        self,
        dim: int,
        *,
        codebook_size: int = 512,
        commitment: float = 0.25,
        decay: float = 0.99,
        restart: float = 0.1,
        data_init: bool = True,
    ) -> None:
        super().__init__()
        if codebook_size < 1:
            raise ValueError(f"codebook_size={codebook_size}: at least 1")
        self.channels = self.dim = dim
        self.codebook_sizes = (codebook_size,)
        self.commitment, self.decay, self.restart, self.data_init = commitment, decay, restart, data_init
        self.codebook: Tensor
        self.counts: Tensor
        self.sums: Tensor
        self.initialised: Tensor
        entries = torch.empty(codebook_size, dim).uniform_(-1, 1) / codebook_size
        self.register_buffer("codebook", entries)
        self.register_buffer("counts", torch.ones(codebook_size))
        self.register_buffer("sums", entries.clone())
        self.register_buffer("initialised", torch.tensor(False))

    def forward(self, z: Tensor) -> Quantized:
        flat = table.flatten(z.detach()).to(self.codebook.dtype)
        if self.training:
            self._initialise(flat)
        won = table.nearest(flat, self.codebook)
        codes = table.unflatten(won, z)
        e = self.embed(codes)
        if self.training:
            self._follow(flat, won)
        loss = self.commitment * table.distance(z, e)
        return Quantized(table.straight_through(z, e), codes, loss, table.uniform_kl(z, len(self.codebook)), {})

    def embed(self, codes: Tensor) -> Tensor:
        return table.look_up(codes, self.codebook)

    @torch.no_grad()
    def _initialise(self, flat: Tensor) -> None:
        """Without a branch on data, so that the forward pass compiles whole."""
        entries = table.draw_rows(flat, len(self.codebook)) if self.data_init else self.codebook
        self._place(~self.initialised.expand(len(self.codebook)), entries, flat)
        self.initialised.fill_(True)

    @torch.no_grad()
    def _follow(self, flat: Tensor, won: Tensor) -> None:
        n = torch.zeros_like(self.counts).index_add_(0, won, torch.ones_like(flat[:, 0]))
        total = torch.zeros_like(self.sums).index_add_(0, won, flat)
        self.counts.lerp_(n, 1 - self.decay)
        self.sums.lerp_(total, 1 - self.decay)
        # Sum and count of an entry that won nothing shrink alike, until they underflow: its place is not 0 / 0.
        won_any = (n > 0).unsqueeze(1)
        self.codebook.copy_(torch.where(won_any, self.sums / self.counts.unsqueeze(1), self.codebook))
        if self.restart > 0:
            late = self.counts < self.restart * len(flat) / len(self.codebook)
            self._place(late, table.draw_rows(flat, len(self.codebook)), flat)

    def _place(self, where: Tensor, entries: Tensor, flat: Tensor) -> None:
        """Sets table, sums and counts of the entries ``where`` together, at the batch's fair share."""
        fair, rows = len(flat) / len(self.codebook), where.unsqueeze(1)
        self.codebook.copy_(torch.where(rows, entries, self.codebook))
        self.sums.copy_(torch.where(rows, fair * entries, self.sums))
        self.counts.masked_fill_(where, fair)
