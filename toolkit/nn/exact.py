"""The nearest of entries among which rounding cannot be trusted: distances computed directly."""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 4
"""Dims up to which all distances are computed directly where the work must be the same for every row."""


def on_a_line(z: Tensor, points: Tensor) -> Tensor:
    """Index ``(n,)`` of the point nearest to each z ``(n,)``, the first of equally near ones; points ``(size,)``.

    One of the two that z lies between, of which equal ones come in their own order.
    """
    line, order = points.contiguous().sort(stable=True)
    after = torch.searchsorted(line, z.contiguous())
    before = torch.searchsorted(line, line[(after - 1).clamp(min=0)])
    pairs = order[torch.stack((before, after), 1).clamp(max=len(line) - 1)]
    return nearest_of_few(z.unsqueeze(1), points.unsqueeze(1), pairs)


def nearest_of_few(z: Tensor, entries: Tensor, codes: Tensor) -> Tensor:
    """Of each row's candidates, codes ``(n, few)``, the nearest to z ``(n, dim)``, the lowest of equally near ones."""
    codes = codes.sort(1).values
    distances = (z.unsqueeze(1) - entries[codes]).square().sum(2)
    return codes.gather(1, distances.argmin(1, keepdim=True)).squeeze(1)


def nearest_of_all(z: Tensor, entries: Tensor) -> Tensor:
    """The same among all entries ``(size, dim)``, of few rows."""
    return (z.unsqueeze(1) - entries).square().sum(2).argmin(1)


def nearest_of_pairs(z: Tensor, entries: Tensor, pairs: Tensor, numbers: int) -> Tensor:
    """The same of any number of candidates: pairs ``(m, 2)`` of a row of z and an entry, at least one for each row.

    ``numbers``: how many there may be in memory at once, besides one for each pair.
    """
    rows, codes = pairs.unbind(1)
    pieces = pairs.split(max(1, numbers // z.shape[1]))
    distances = torch.cat([(z[piece[:, 0]] - entries[piece[:, 1]]).square().sum(1) for piece in pieces])
    smallest = z.new_full((len(z),), torch.inf).scatter_reduce_(0, rows, distances, "amin")
    best = distances == smallest[rows]
    none = torch.full_like(z[:, 0], len(entries), dtype=torch.int64)
    return none.scatter_reduce_(0, rows[best], codes[best], "amin")


def squares(z: Tensor, entries: Tensor) -> Tensor:
    """Squared distances ``(…, n, size)`` of rows z ``(…, n, dim)`` and entries ``(…, size, dim)``, one dim after the
    other.
    """
    differences = (z[..., d, None] - entries[..., None, :, d] for d in range(z.shape[-1]))
    return sum((difference.square() for difference in differences), z.new_zeros(()))


def margin(length: Tensor, value: Tensor, dim: int) -> Tensor:
    """By how much an expanded distance may exceed the smallest one, and its entry still be the nearest: ``(n,)``.

    length ``(n,)``: ``|z|``; value ``(n,)``: the smallest of ``|e|^2 - 2 z e`` as computed. Twice the bound on its
    rounding, (dim + 2) u (|e|^2 + 2 |z| |e|) with u half the precision, for entries as long as one so near can be, and
    a little more, as those lengths, and the differences to the entries' mean, are rounded themselves.
    """
    reach = torch.addcmul(value, length, length).clamp_(min=0).sqrt_().add_(length)
    slack = (1.125 * dim + 8) * torch.finfo(value.dtype).eps
    return torch.add(reach, length, alpha=2).mul_(reach).mul_(slack)
