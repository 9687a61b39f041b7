"""The quantizer of the VQ-VAE paper."""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor, nn

from toolkit.distributed import total
from toolkit.quantizers.drawn import DrawnQuantizer, random_entries

DECAY = 0.99
"""Of the counts that say which entries start again."""


@final
class VectorQuantizer(DrawnQuantizer):
    """Nearest entry of a learned codebook, straight-through gradient (van den Oord et al. 2017, eq. 1-3).

    The loss is ``|sg[z] - e|^2 + commitment * |z - sg[e]|^2``, each norm summed over dim and averaged over
    positions, so that ``commitment`` is the paper's beta at any dim.

    Args:
        codebook_size: entries of the codebook, K.
        commitment: beta; the paper finds no change between 0.1 and 2.
        init: where entries start: at latents of the first training batch, at their k-means, or at random.
        restart: share of latents / codebook_size, in a moving average, below which an entry starts again at a latent
            of the batch; 0 never restarts.
        gradient: of the latents: the entries' as it is, or turned back by the angle between the two (rotation trick,
            Fifty et al. 2024).
        normalise: latents and entries are scaled to length 1 first, so that the nearest is the most alike in direction.
        entropy: weight of E[H(p)] - H(E[p]), p = softmax(-|z - e|^2 / entropy_temperature) over entries, in training:
            each latent sure of its entry, all entries used alike.
        entropy_temperature: in units of squared distance; about 0.01 where latents are normalised.
    """

    def __init__(
        self,
        dim: int,
        *,
        codebook_size: int = 512,
        commitment: float = 0.25,
        init: Literal["data", "kmeans", "random"] = "data",
        restart: float = 0.0,
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
        self.codebook = nn.Parameter(random_entries(codebook_size, dim))
        self.counts: Tensor  # kept without restarts, too, so that these may be turned on later
        self.register_buffer("counts", torch.ones(codebook_size))

    @torch.no_grad()
    def begin(self, rows: Tensor) -> None:
        """Starts again before the look-up: after it, the entries wait for their gradient."""
        super().begin(rows)
        if self.restart > 0:
            self.start_again(self.counts, rows)

    @torch.no_grad()
    def follow(self, rows: Tensor, won: Tensor) -> None:
        counts = torch.zeros_like(self.counts).index_add_(0, won, torch.ones_like(rows[:, 0]))
        total(counts)
        self.counts.lerp_(counts, 1 - DECAY)

    @torch.no_grad()
    def place(self, where: Tensor, entries: Tensor, fair: float) -> None:
        self.codebook.copy_(torch.where(where.unsqueeze(1), entries, self.codebook))
        self.counts.masked_fill_(where, fair)
