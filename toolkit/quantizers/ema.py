"""A codebook that follows moving averages instead of a gradient."""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor

from toolkit.nn import codebook as table
from toolkit.quantizers.drawn import DrawnQuantizer, random_entries


@final
class EMAQuantizer(DrawnQuantizer):
    """Entries are moving averages of the latents they won (van den Oord et al. 2017, appendix A.1).

    Per entry i, with n_i latents won in the batch::

        N_i <- decay N_i + (1 - decay) n_i
        m_i <- decay m_i + (1 - decay) sum of the latents won
        e_i  = m_i / N_i

    An entry starts with the fair share for its N_i: latents per batch / codebook_size. One that wins nothing keeps its
    place. One whose N_i falls below ``restart`` times the fair share starts again at a latent of the batch, with table,
    sum and count set together after the averages are written, so that the restart survives the step it is made in.
    Statistics are float32, and of all ranks' latents. The loss is ``commitment * |z - sg[e]|^2``, summed over dim and
    averaged over positions.

    Args:
        codebook_size: entries of the codebook, K.
        commitment: beta, the weight of the loss.
        decay: gamma of the averages.
        init: where entries start: at latents of the first training batch, at their k-means, or at random.
        restart: share of the fair share below which an entry starts again; 0 never restarts.
        gradient: of the latents: the entries' as it is, or turned back by the angle between the two (rotation trick,
            Fifty et al. 2024).
        normalise: latents and entries are scaled to length 1 first, so that the nearest is the most alike in direction.
        entropy: weight of E[H(p)] - H(E[p]), p = softmax(-|z - e|^2 / entropy_temperature) over entries, in training:
            each latent sure of its entry, all entries used alike.
        entropy_temperature: in units of squared distance; about 0.01 where latents are normalised.
    """

    draws_entries = False

    def __init__(
        self,
        dim: int,
        *,
        codebook_size: int = 512,
        commitment: float = 0.25,
        decay: float = 0.99,
        init: Literal["data", "kmeans", "random"] = "data",
        restart: float = 0.1,
        gradient: Literal["straight_through", "rotation"] = "straight_through",
        normalise: bool = False,
        entropy: float = 0.0,
        entropy_temperature: float = 1.0,
    ) -> None:
        super().__init__(
            dim,
            codebook_size=codebook_size,
            commitment=commitment,
            init=init,
            restart=restart,
            gradient=gradient,
            normalise=normalise,
            entropy=entropy,
            entropy_temperature=entropy_temperature,
        )
        self.decay = decay
        self.counts: Tensor
        self.sums: Tensor
        entries = random_entries(codebook_size, dim)
        self.register_buffer("codebook", entries)
        self.register_buffer("counts", torch.ones(codebook_size))
        self.register_buffer("sums", entries.clone())

    @torch.no_grad()
    def follow(self, rows: Tensor, won: Tensor) -> None:
        counts, sums = table.won_by(won, rows, len(self.codebook))
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        # Sum and count of an entry that won nothing shrink alike, until they underflow: its place is not 0 / 0.
        won_any = (counts > 0).unsqueeze(1)
        self.codebook.copy_(torch.where(won_any, self.sums / self.counts.unsqueeze(1), self.codebook))
        if self.restart > 0:
            self.start_again(self.counts, rows)

    @torch.no_grad()
    def place(self, where: Tensor, entries: Tensor, fair: float) -> None:
        """Table, sums and counts together."""
        each = where.unsqueeze(1)
        self.codebook.copy_(torch.where(each, entries, self.codebook))
        self.sums.copy_(torch.where(each, fair * entries, self.sums))
        self.counts.masked_fill_(where, fair)
