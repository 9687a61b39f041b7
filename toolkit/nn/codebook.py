"""What quantizers with a table share: the nearest entry, and entries drawn from the data."""

from __future__ import annotations

from math import log, prod

import torch
from torch import Tensor

TILE = 1 << 20
"""Distances held at once on a CPU: 4 MiB in float32, about a core's share of cache."""

GPU_TILE = 1 << 27
"""The same on a GPU, where many small products cost more than memory does: 512 MiB."""


@torch.no_grad()
def nearest(z: Tensor, codebook: Tensor) -> Tensor:
    """Index ``(n,)`` of the entry nearest to each row of z ``(n, dim)``; codebook ``(codebook_size, dim)``.

    Never holds all n x codebook_size distances. ``|z|^2`` is the same for every entry and left out. Computed in at
    least float32 under any autocast: in bfloat16 neighbouring entries are confused.
    """
    with torch.autocast(z.device.type, enabled=False):
        z, codebook = widen(z), widen(codebook)
        norms = codebook.square().sum(1)
        rows = max(1, (TILE if z.device.type == "cpu" else GPU_TILE) // len(codebook))
        tiles = [torch.addmm(norms, tile, codebook.T, alpha=-2).argmin(1) for tile in z.split(rows)]
        return torch.cat(tiles)


def widen(t: Tensor) -> Tensor:
    """At least float32."""
    return t if t.dtype == torch.float64 else t.float()


def flatten(z: Tensor) -> Tensor:
    """Latents ``(batch, dim, *grid)`` as rows ``(batch * positions, dim)``."""
    return z.movedim(1, -1).reshape(-1, z.shape[1])


def draw_rows(z: Tensor, n: int) -> Tensor:
    """``n`` rows of z, one at random from each of n equal stretches: without repetition where there are enough."""
    places = (torch.arange(n, device=z.device) + torch.rand(n, device=z.device)) * (len(z) / n)
    return z[places.long().clamp(max=len(z) - 1)]


def unflatten(codes: Tensor, z: Tensor) -> Tensor:
    """Codes ``(batch * positions,)`` of latents z ``(batch, dim, *grid)`` as ``(batch, 1, *grid)``."""
    return codes.view(len(z), 1, *z.shape[2:])


def look_up(codes: Tensor, codebook: Tensor) -> Tensor:
    """Codes ``(batch, 1, *grid)`` to entries ``(batch, dim, *grid)``."""
    return torch.nn.functional.embedding(codes.squeeze(1), codebook).movedim(-1, 1)


def straight_through(z: Tensor, e: Tensor) -> Tensor:
    """The entries e as values, with the gradient of the latents z."""
    return e.detach() + (z - z.detach())


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared distance of latents ``(batch, dim, *grid)``: summed over dim, averaged over positions: ``(batch,)``."""
    return (widen(a) - widen(b)).square().sum(1).flatten(1).mean(1)


def uniform_kl(z: Tensor, codebook_size: int) -> Tensor:
    """Nats ``(batch,)`` from a one-hot posterior at every position to the uniform prior: positions x log K."""
    return z.new_full((len(z),), prod(z.shape[2:]) * log(codebook_size), dtype=widen(z[:0]).dtype)
