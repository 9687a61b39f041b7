"""Attention inside windows that lie one after the other."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from toolkit.ranges import PositiveInt
from toolkit_audio.sliding_attention import turned, turns

HEAD = 64
"""Channels of a head, as published."""

AttentionWindow = Annotated[
    PositiveInt | None,
    Doc("latents that attend to one another, window after window, in heads of 64 channels; null: no attention."),
]


class WindowAttention(nn.Module):
    """Norm and attention with rotary positions among the positions of a window, added to the input.

    SNAC (Siuzdak et al. 2024, arXiv:2410.14411, 3.3). No map has a bias. The last window is shorter where the positions
    are no whole number of windows.
    """

    def __init__(self, channels: int, window: int) -> None:
        super().__init__()
        if channels % HEAD:
            raise ValueError(f"window={window}: attention needs a multiple of {HEAD} channels, not {channels}")
        self.window = window
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, channels, positions)``."""
        qkv = self.qkv(self.norm(h.transpose(1, 2))).unflatten(2, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        read = self._read(query, key, value).transpose(1, 2).flatten(2)
        out: Tensor = h + self.out(read).transpose(1, 2)
        return out

    def _read(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """All ``(batch, heads, positions, HEAD)``. Angles of two positions differ by what lies between them, so that
        they count from the beginning of all, as well as from that of a window."""
        length = query.shape[2]
        if torch.compiler.is_exporting():  # of any length, with no shape that depends on it
            cos, sin = turns(length, HEAD, query)
            place = torch.arange(length, device=query.device) // self.window
            return F.scaled_dot_product_attention(
                turned(query, cos, sin).to(value), turned(key, cos, sin).to(value), value, place[:, None] == place
            )
        rest = length % self.window
        sizes = [size for size in (length - rest, rest) if size]
        queries, keys, values = (t.split(sizes, 2) for t in (query, key, value))
        parts = zip(queries, keys, values, strict=True)
        return torch.cat([_in_windows(q, k, v, min(self.window, q.shape[2])) for q, k, v in parts], 2)


def _in_windows(query: Tensor, key: Tensor, value: Tensor, window: int) -> Tensor:
    """The same of whole windows."""
    heads = query.shape[1]
    cos, sin = turns(window, HEAD, query)
    query, key, value = (t.unflatten(2, (-1, window)).flatten(1, 2) for t in (query, key, value))
    read = F.scaled_dot_product_attention(turned(query, cos, sin).to(value), turned(key, cos, sin).to(value), value)
    whole: Tensor = read.unflatten(1, (heads, -1)).flatten(2, 3)
    return whole
