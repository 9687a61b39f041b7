"""Attention to a position and the latest ones before it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

THETA = 10000.0
"""Of the slowest rotation, about the positions of a radian."""


def attend_to_latest(query: Tensor, key: Tensor, value: Tensor, window: int) -> Tensor:
    """Each position to itself and the ``window - 1`` before it; all ``(batch, heads, positions, channels)``."""
    length = query.shape[2]
    if torch.compiler.is_exporting():  # of any length: which of the others it takes would be fixed in the graph
        return F.scaled_dot_product_attention(query, key, value, attn_mask=_latest(length, window, query.device))
    if length <= window:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)
    return _in_blocks(query, key, value, window)


def _latest(length: int, window: int, device: torch.device) -> Tensor:
    """Whether a position ``(length, 1)`` sees another ``(1, length)``."""
    order = torch.arange(length, device=device)
    ago = order[:, None] - order
    return (ago >= 0) & (ago < window)


def _in_blocks(query: Tensor, key: Tensor, value: Tensor, window: int) -> Tensor:
    """The same in blocks of a window each, which see themselves and the block before: linear in the positions."""
    heads, rest = query.shape[1], query.shape[2] - window
    fill = (0, 0, 0, -rest % window)
    early = [t[:, :, :window] for t in (query, key, value)]
    first = F.scaled_dot_product_attention(early[0], early[1], early[2], is_causal=True)
    blocks = F.pad(query[:, :, window:], fill).unflatten(2, (-1, window)).flatten(1, 2)
    keys, values = (_with_block_before(F.pad(t, fill), window) for t in (key, value))
    order = torch.arange(2 * window, device=query.device)
    ago = order[window:, None] - order
    later = F.scaled_dot_product_attention(blocks, keys, values, attn_mask=(ago >= 0) & (ago < window))
    return torch.cat([first, later.unflatten(1, (heads, -1)).flatten(2, 3)[:, :, :rest]], 2)


def _with_block_before(t: Tensor, window: int) -> Tensor:
    """``(batch, heads, positions, channels)`` to ``(batch, heads * blocks, 2 * window, channels)``, but for the first
    block, which has none before it."""
    return t.unfold(2, 2 * window, window).transpose(3, 4).flatten(1, 2)


def turns(length: int, channels: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine ``(length, channels / 2)`` of the angles of rotary positions (Su et al. 2021), in float32 or
    wider.

    A pair of channels, one of each half, turns once in ``2 pi`` to ``2 pi THETA`` positions.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    steps = torch.arange(0, channels, 2, device=like.device, dtype=dtype) / channels
    angles = torch.arange(length, device=like.device, dtype=dtype)[:, None] * (1.0 / THETA**steps)
    return angles.cos(), angles.sin()


def turned(t: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """``(…, positions, channels)`` rotated by the position's angles, pair by pair."""
    a, b = t.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
