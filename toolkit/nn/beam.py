"""Codes of several tables whose entries add up: the best of some that are followed at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from toolkit.device import in_float32, wide
from toolkit.nn.lookup import tile_size


@torch.no_grad()
def beam_search(rows: Tensor, tables: Sequence[Tensor], beams: int, known: Tensor) -> Tensor:
    """Codes ``(n, depth)`` whose entries' sum is near rows ``(n, dim)``; tables ``(codebook_size, dim)``, one per
    depth.

    After each table the ``beams`` sums that are nearest are kept, and in the end the nearest one, or the ``known``
    codes ``(n, depth)`` where none is nearer than theirs: the result is never farther away. Where ``beams`` is the
    number of all sums before the last table it is the nearest of all. Computed in float64 where the device has it.
    """
    with in_float32(rows.device):
        tables = [entries.to(wide(rows.device)) for entries in tables]
        if torch.compiler.is_exporting():  # a graph would fix how many tiles there are
            return _search(rows, tables, beams, known)
        tile = max(1, tile_size(rows.device) // (beams * max(entries.shape[0] for entries in tables)))
        pairs = zip(rows.split(tile), known.split(tile), strict=True)
        return torch.cat([_search(of_tile, tables, beams, codes) for of_tile, codes in pairs])


def _search(rows: Tensor, tables: list[Tensor], beams: int, known: Tensor) -> Tensor:
    rows = rows.to(tables[0].dtype)
    left, codes = rows.unsqueeze(1), known.new_zeros((rows.shape[0], 1, 0))  # of each beam
    for entries in tables:
        size = entries.shape[0]
        # |left - e|^2, but for what is the same for all of a row
        distances = left.square().sum(2, keepdim=True) + entries.square().sum(1) - 2 * left @ entries.mT
        best = distances.flatten(1).topk(min(beams, left.shape[1] * size), largest=False).indices
        beam, code = best // size, best % size
        left = _of(left, beam) - entries[code]
        codes = torch.cat([_of(codes, beam), code.unsqueeze(2)], 2)
    left_of_known = rows
    for entries, code in zip(tables, known.unbind(1), strict=True):
        left_of_known = left_of_known - entries[code]
    all_left = torch.cat([left_of_known.unsqueeze(1), left], 1)
    all_codes = torch.cat([known.unsqueeze(1), codes], 1)
    nearest = all_left.square().sum(2).argmin(1, keepdim=True)
    return _of(all_codes, nearest).squeeze(1)


def _of(of_beams: Tensor, beam: Tensor) -> Tensor:
    """``(n, beams, …)`` of the beams ``(n, chosen)``."""
    return of_beams.gather(1, beam.unsqueeze(2).expand(-1, -1, of_beams.shape[2]))
