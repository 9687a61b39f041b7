"""What quantizers with a codebook share: latents as rows and back, lookup, assignments, distances."""

from __future__ import annotations

from math import log, prod
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Doc

from toolkit.distributed import all_reduce_sum
from toolkit.ranges import NonNegative, PositiveInt

CodebookSize = Annotated[PositiveInt, Doc("entries of the codebook, K.")]
Commitment = Annotated[
    NonNegative, Doc("beta, the weight of |z - sg[e]|^2; the paper finds no change between 0.1 and 2.")
]


def single(codebook_size: CodebookSize) -> tuple[int, ...]:
    """``codebook_sizes`` of a single codebook. ValueError where it has no entry."""
    if codebook_size < 1:
        raise ValueError(f"codebook_size={codebook_size}: at least 1")
    return (codebook_size,)


def upcast(t: Tensor) -> Tensor:
    """float64 as it is, all else as float32."""
    return t if t.dtype == torch.float64 else t.float()


def channels_last(z: Tensor) -> Tensor:
    """The same latents ``(batch, dim, *grid)``, contiguous over dim.

    Entries looked up in a codebook have this layout; with the same layout for both, no operation strides through
    memory.
    """
    return z.movedim(1, -1).contiguous().movedim(-1, 1)


def flatten(z: Tensor) -> Tensor:
    """Latents ``(batch, dim, *grid)`` as rows ``(batch * positions, dim)``."""
    return z.movedim(1, -1).reshape(-1, z.shape[1])


def per_table(z: Tensor, tables: int) -> Tensor:
    """Latents ``(tables * batch, dim, *grid)`` as rows ``(tables, batch * positions, dim)``."""
    rows = flatten(z)
    return rows.view(tables, -1, rows.shape[1])


def unflatten(codes: Tensor, z: Tensor) -> Tensor:
    """Codes ``(batch * positions,)`` of latents z ``(batch, dim, *grid)`` as ``(batch, 1, *grid)``.

    Or ``(tables, batch * positions)`` of latents ``(tables * batch, dim, *grid)``.
    """
    return codes.view(z.shape[0], 1, *z.shape[2:])


def look_up(codes: Tensor, codebook: Tensor) -> Tensor:
    """Codes ``(batch, 1, *grid)`` to entries ``(batch, dim, *grid)`` of a codebook ``(codebook_size, dim)``.

    Or ``(tables * batch, 1, *grid)`` to those of codebooks ``(tables, codebook_size, dim)``.
    """
    if codebook.dim() == 3:
        codes = numbered(codes.unflatten(0, (len(codebook), -1)), codebook.shape[1]).view_as(codes)
        codebook = codebook.flatten(0, 1)
    return F.embedding(codes.squeeze(1), codebook).movedim(-1, 1)


def numbered(codes: Tensor, size: int) -> Tensor:
    """Entries ``(tables, …)`` of tables of one size, by their numbers where one table comes after the other."""
    if len(codes) == 1:
        return codes
    first = torch.arange(0, len(codes) * size, size, device=codes.device)
    return codes + first.view(-1, *[1] * (codes.dim() - 1))


@torch.no_grad()
def count_assignments(codes: Tensor, rows: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Per entry the number of rows assigned to it ``(…, size)`` and their sum ``(…, size, dim)``, over all ranks.

    codes ``(…, n)`` are the entries of rows ``(…, n, dim)``, in the tables that ``…`` numbers, if there are several.
    """
    tables, dim = rows.shape[:-2], rows.shape[-1]
    numbers = (numbered(codes, size) if tables else codes).flatten()
    entries = prod(tables) * size
    both = rows.new_zeros(entries * (1 + dim))  # in one piece, for a single reduction
    counts, sums = both[:entries], both[entries:].view(entries, dim)
    counts.index_add_(0, numbers, torch.ones_like(numbers, dtype=rows.dtype))
    sums.index_add_(0, numbers, rows.reshape(-1, dim))
    all_reduce_sum(both)
    return counts.view(*tables, size), sums.view(*tables, size, dim)


def per_example(per_table: Tensor, z: Tensor) -> Tensor:
    """``(tables,)``, repeated for each of its latents z ``(tables * batch, dim, *grid)``: ``(tables * batch,)``."""
    return per_table.unsqueeze(1).expand(-1, len(z) // len(per_table)).reshape(-1)


def straight_through(z: Tensor, e: Tensor) -> Tensor:
    """The entries e as values, with the gradient of the latents z."""
    if not torch.is_grad_enabled():
        return e.to(torch.promote_types(e.dtype, z.dtype))
    return e.detach() + (z - z.detach())


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared distance of latents ``(batch, dim, *grid)``: summed over dim, averaged over positions: ``(batch,)``."""
    # A norm's gradient is one pass over the latents, that of a sum of squares several.
    norms: Tensor = torch.linalg.vector_norm(upcast(a) - upcast(b), dim=1)
    return norms.square().flatten(1).mean(1)


def uniform_kl(z: Tensor, codebook_size: int) -> Tensor:
    """Nats ``(batch,)`` from a one-hot posterior at every position to the uniform prior: positions x log K."""
    return z.new_full((z.shape[0],), prod(z.shape[2:]) * log(codebook_size), dtype=upcast(z[:0]).dtype)
