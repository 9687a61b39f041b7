"""A straight-through choice among all entries of a table, whose backward pass never has all choices in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from toolkit.device import in_float32
from toolkit.nn.lookup import tile_size

FEWEST = 16
"""Fewest rows of a tile: with fewer, products with a large table would read it once for little."""


def choose(rows: Tensor, entries: Tensor, codes: Tensor, scale: float, squares: float) -> Tensor:
    """Entries ``(n, dim)`` of codes ``(n,)`` as values, with the gradient of a softmax over all entries.

    With rows z ``(n, dim)`` and entries e ``(codebook_size, dim)`` this is ``(hard + p - sg[p]) e``, hard the one-hot
    codes and ``p = softmax(scale * z e - squares * |e|^2)``, so that every entry and z learn from every choice that was
    possible (Shi et al. 2024, arXiv:2412.02692). It costs four products of n x codebook_size x dim in the backward pass
    and none in the forward pass.
    """
    chosen: Tensor = _Choose.apply(rows, entries, codes, scale, squares)  # type: ignore[no-untyped-call]
    return chosen


class _Choose(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, entries: Tensor, codes: Tensor, scale: float, squares: float) -> Tensor:
        ctx.save_for_backward(rows, entries, codes)
        ctx.scale, ctx.squares = scale, squares
        return entries.index_select(0, codes)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        rows, entries, codes = ctx.saved_tensors
        (g,) = upstream
        with in_float32(rows.device):
            of_rows, of_entries = _gradients(rows, entries, g, ctx.scale, ctx.squares)
        return of_rows, of_entries.index_add(0, codes, g), None, None, None


def _gradients(rows: Tensor, entries: Tensor, g: Tensor, scale: float, squares: float) -> tuple[Tensor, Tensor]:
    """Of rows and of entries, as far as they come through the softmax."""
    lengths = entries.square().sum(1) * -squares
    of_rows, of_entries, shares = [], torch.zeros_like(entries), torch.zeros_like(lengths)
    tile = max(FEWEST, tile_size(rows.device) // entries.shape[0])
    for z, upstream in zip(rows.split(tile), g.split(tile), strict=True):
        p = torch.addmm(lengths, z, entries.mT, alpha=scale).softmax(1)
        gain = upstream @ entries.mT
        moved = p * (gain - (p * gain).sum(1, keepdim=True))
        of_rows.append(scale * (moved @ entries))
        of_entries = torch.addmm(of_entries, moved.mT, z, alpha=scale)
        shares = shares + moved.sum(0)
    return torch.cat(of_rows), of_entries - 2 * squares * shares.unsqueeze(1) * entries
