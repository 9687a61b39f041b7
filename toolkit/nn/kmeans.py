"""Entries sampled from the latents, and k-means."""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.distributed import all_reduce_sum, broadcast, rank, ranks
from toolkit.lengths.ranks import rows_of_ranks
from toolkit.nn.codebook import count_assignments
from toolkit.nn.lookup import nearest

ITERATIONS = 10
"""Iterations of k-means on one batch; training does the rest."""


@torch.no_grad()
def sample_rows(z: Tensor, n: int) -> Tensor:
    """``n`` rows of z ``(…, rows, dim)``, one sampled from each of n equal strata: without repetition where there are
    enough.

    From all ranks' rows, concatenated in rank order; the same on every rank.
    """
    counts = rows_of_ranks(z.shape[-2])
    rows = sum(counts)
    uniforms = broadcast(torch.rand(*z.shape[:-2], n, device=z.device))
    indices = ((torch.arange(n, device=z.device) + uniforms) * (rows / n)).long().clamp(max=rows - 1)
    if ranks() == 1:
        return _rows(z, indices)
    indices = indices - sum(counts[: rank()])
    mine = (indices >= 0) & (indices < z.shape[-2])
    sampled = torch.where(mine.unsqueeze(-1), _rows(z, indices.clamp(0, z.shape[-2] - 1)), 0)
    all_reduce_sum(sampled)
    return sampled


def _rows(z: Tensor, indices: Tensor) -> Tensor:
    """Rows ``(…, n, dim)`` of z ``(…, rows, dim)`` by their indices ``(…, n)``."""
    return z.gather(-2, indices.unsqueeze(-1).expand(*indices.shape, z.shape[-1]))


@torch.no_grad()
def kmeans(z: Tensor, entries: Tensor) -> Tensor:
    """Entries ``(…, n, dim)`` after Lloyd's iterations over the rows z ``(…, m, dim)`` of all ranks.

    An entry with no row stays where it is.
    """
    for _ in range(ITERATIONS):
        counts, sums = count_assignments(nearest(z, entries), z, entries.shape[-2])
        entries = torch.where(counts.unsqueeze(-1) > 0, sums / counts.unsqueeze(-1), entries)
    return entries
