"""A causal transformer of sound that looks back so far and no further."""

from __future__ import annotations

from math import sqrt
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from toolkit.ranges import NonNegativeInt, PositiveInt
from toolkit_audio.sliding_attention import attend_to_latest, turned, turns

LAYER_SCALE = 0.01
"""Of what a layer adds, in the beginning."""

Layers = Annotated[NonNegativeInt, Doc("of the transformer, at the rate of the waveform's strides.")]
Heads = Annotated[PositiveInt, Doc("of its attention; dim must be a multiple of twice as many.")]
Window = Annotated[PositiveInt, Doc("positions that a layer sees: its own and the latest before it.")]
MLP = Annotated[PositiveInt, Doc("channels between the two linear maps after the attention.")]


class SlidingTransformer(nn.Module):
    """Pre-norm blocks of causal attention with rotary positions, and no final norm (Défossez et al. 2024, 3.3.1).

    What a block's attention and its two linear maps with a GELU between add is scaled channel by channel, by little in
    the beginning (Touvron et al. 2021). No map has a bias. As a window slides over all positions alike, an output
    depends on ``layers * (window - 1)`` positions before it, wherever these begin.
    """

    blocks: list[SlidingBlock]

    def __init__(self, channels: int, *, layers: int, heads: int, window: int, mlp: int) -> None:
        super().__init__()
        if channels % (2 * heads):
            raise ValueError(f"heads={heads}: dim={channels} must be a multiple of twice as many")
        self.window, self.head = window, channels // heads
        self.blocks = nn.ModuleList(SlidingBlock(channels, heads, mlp) for _ in range(layers))  # type: ignore[assignment]

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it."""
        return first - len(self.blocks) * (self.window - 1), last

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, channels, positions)``."""
        x = h.transpose(1, 2)
        cos, sin = turns(x.shape[1], self.head, x)
        for block in self.blocks:
            x = block(x, cos, sin, self.window)
        return x.transpose(1, 2)


class SlidingBlock(nn.Module):
    """A layer of it: x ``(batch, positions, channels)``, and the angles of the positions."""

    def __init__(self, channels: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels, bias=False)
        self.wide = nn.Linear(channels, mlp, bias=False)
        self.narrow = nn.Linear(mlp, channels, bias=False)
        self.attention_scale = nn.Parameter(torch.full((channels,), LAYER_SCALE))
        self.mlp_scale = nn.Parameter(torch.full((channels,), LAYER_SCALE))
        for linear in (self.qkv, self.out, self.wide, self.narrow):
            nn.init.normal_(linear.weight, std=1 / sqrt(linear.in_features))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, window: int) -> Tensor:
        qkv = self.qkv(self.before_attention(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key = turned(qkv[:2], cos, sin).to(qkv).unbind(0)
        read = attend_to_latest(query, key, qkv[2], window)
        x = x + self.attention_scale * self.out(read.transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp_scale * self.narrow(F.gelu(self.wide(self.before_mlp(x))))
        return out
