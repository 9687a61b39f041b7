"""Entries drawn from the latents, and moved to the middle of those around them."""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.distributed import all_reduce_sum, broadcast, rank, ranks
from toolkit.nn.codebook import count_assignments
from toolkit.nn.lookup import nearest

ITERATIONS = 10
"""Of k-means on one batch: what moves after these, training moves as well."""


@torch.no_grad()
def sample_rows(z: Tensor, n: int) -> Tensor:
    """``n`` rows of z, one at random from each of n equal stretches: without repetition where there are enough.

    Of all ranks' rows, joined in the order of the ranks; the same on every rank.
    """
    rows = len(z) * ranks()
    uniforms = broadcast(torch.rand(n, device=z.device))
    places = ((torch.arange(n, device=z.device) + uniforms) * (rows / n)).long().clamp(max=rows - 1)
    if ranks() == 1:
        return z[places]
    places = places - rank() * len(z)
    mine = (places >= 0) & (places < len(z))
    drawn = torch.where(mine.unsqueeze(1), z[places.clamp(0, len(z) - 1)], 0)
    all_reduce_sum(drawn)
    return drawn


@torch.no_grad()
def kmeans(z: Tensor, entries: Tensor) -> Tensor:
    """Entries ``(n, dim)`` after Lloyd's iterations over the rows z ``(m, dim)`` of all ranks.

    An entry that wins nothing keeps its place.
    """
    for _ in range(ITERATIONS):
        counts, sums = count_assignments(nearest(z, entries), z, len(entries))
        entries = torch.where(counts.unsqueeze(1) > 0, sums / counts.unsqueeze(1), entries)
    return entries
