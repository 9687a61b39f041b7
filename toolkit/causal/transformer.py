"""A causal transformer over grids of any rank, with a cache of keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.causal.context import Context, apart
from toolkit.causal.network import Trunk, stretches
from toolkit.conditioner import Tokens
from toolkit.nn.attention import Block, CrossAttention, GridPositions
from toolkit.nn.rotary import Positions, RotaryPositions, check_positions, rotate

SEGMENTS = 8
"""Segments of the positions where steps share graphs: one graph per segment."""


class Layer(NamedTuple):
    """A block's weights for its step, transposed to ``(inputs, outputs)``, and its cache."""

    qkv: tuple[Tensor, Tensor]
    out: tuple[Tensor, Tensor]
    wide: tuple[Tensor, Tensor]
    narrow: tuple[Tensor, Tensor]
    keys: Tensor
    """``(batch * heads, positions, channels of a head)``."""
    values: Tensor


class TransformerState(NamedTuple):
    """Folded weights, cache of keys and values, and the last input."""

    layers: list[Layer]
    pos_emb: Tensor
    """Position embedding and context: ``(positions, batch or 1, hidden)``."""
    order: Tensor
    """``(positions,)``: 0, 1, …"""
    last_input: Tensor
    """The last position's embedding, ``(batch, hidden)``."""
    sources: Tensor | None
    """What inputs say of their own positions, ``(positions, hidden)``, where they do."""
    rotation: Tensor | None
    """Of queries and keys, ``(2, positions, channels of a head / 2)``, where positions are rotary."""
    texts: list[tuple[Tensor, Tensor]]
    """Of each block, keys and values of the texts' tokens; empty without texts."""
    read: Tensor | None
    """Which tokens there are, ``(batch, 1, 1, tokens)``."""


@final
class Transformer(Trunk):
    """Pre-norm blocks of causal attention over the grid in raster order (Vaswani et al. 2017, Radford et al. 2019).

    A position's input is that of the position before it, plus an embedding of its own position, one table per axis (as
    in VideoGPT, Yan et al. 2021), plus the context. It has positions for the given grid, and works on smaller ones;
    with ``rotary`` positions, which have no tables, on all of as many axes.

    With ``any_order`` an input also says where it comes from, so that ``in_order`` takes positions in any order.

    With ``texts`` every block comes after an attention to the tokens of texts, which a ``TextContext`` has.
    """

    blocks: list[Block]

    def __init__(
        self,
        grid: tuple[int, ...],
        *,
        context: int = 0,
        hidden: int = 256,
        layers: int = 8,
        heads: int = 8,
        dropout: float = 0.0,
        positions: Positions = "learned",
        any_order: bool = False,
        texts: bool = False,
    ) -> None:
        super().__init__()
        check_positions(positions)
        self.channels = self.features = hidden
        self.start = nn.Parameter(0.02 * torch.randn(hidden))
        self.positions = GridPositions(grid, hidden) if positions == "learned" else None
        self.sources = GridPositions(grid, hidden) if any_order else None
        self.rotary = RotaryPositions(len(grid), hidden // heads) if positions == "rotary" else None
        self.context = nn.Linear(context, hidden) if context else None
        self.blocks = nn.ModuleList(Block(hidden, heads, dropout) for _ in range(layers))  # type: ignore[assignment]
        self.norm = nn.LayerNorm(hidden)
        self.texts: list[CrossAttention] = nn.ModuleList(  # type: ignore[assignment]
            CrossAttention(hidden, heads, dropout) for _ in range(layers if texts else 0)
        )

    def forward(self, embedded: Tensor, context: Context | None = None) -> Tensor:
        grid = embedded.shape[2:]
        past = embedded.flatten(2).transpose(1, 2)
        if self.sources is not None:
            past = past + self.sources(grid)
        first, (everywhere, tokens) = self.start.to(past.dtype).expand(len(past), 1, -1), apart(context)
        x = torch.cat((first, past[:, :-1]), 1) + self._pos_emb(grid, everywhere).transpose(0, 1)
        rotation = self._rotation(grid)
        for number, block in enumerate(self.blocks):
            x = block(self._attended(number, x, tokens), causal=True, rotation=rotation)
        features: Tensor = self.norm(x).unflatten(1, grid)
        return features

    def in_order(self, embedded: Tensor, context: Context | None, order: Tensor) -> Tensor:
        """``(batch, positions, features)`` from ``(batch, channels, *grid)``: those of the positions in ``order``
        ``(batch, positions)``, each from the inputs before it in that order."""
        assert self.sources is not None
        grid, rows = embedded.shape[2:], order.unsqueeze(2)
        known = embedded.flatten(2).transpose(1, 2) + self.sources(grid)
        past = known.gather(1, rows.expand(-1, -1, known.shape[2]))
        first, (everywhere, tokens) = self.start.to(past.dtype).expand(len(past), 1, -1), apart(context)
        pos_emb = self._pos_emb(grid, everywhere).transpose(0, 1).expand(len(past), -1, -1)
        x = torch.cat((first, past[:, :-1]), 1) + pos_emb.gather(1, rows.expand(-1, -1, pos_emb.shape[2]))
        for number, block in enumerate(self.blocks):
            x = block(self._attended(number, x, tokens), causal=True)
        features: Tensor = self.norm(x)
        return features

    def blocks_in_order(self) -> list[Block]:
        return list(self.blocks)

    def _attended(self, number: int, x: Tensor, tokens: Tokens | None) -> Tensor:
        """x ``(batch, positions, hidden)`` before a block, after it has attended to the texts."""
        return x if tokens is None else self.texts[number](x, tokens)

    def init(self, batch: int, grid: Sequence[int], context: Context | None = None) -> TransformerState:
        positions, (everywhere, tokens) = prod(grid), apart(context)
        layers = [_folded(block, batch, positions) for block in self.blocks]
        pos_emb = self._pos_emb(tuple(grid), everywhere).contiguous()
        order = torch.arange(positions, device=pos_emb.device)
        first, sources = self.start.detach().repeat(batch, 1), self.sources
        given = None if sources is None else sources(tuple(grid))
        rotation, texts = self._rotation(tuple(grid)), [] if tokens is None else [_read(c, tokens) for c in self.texts]
        read = None if tokens is None else tokens.mask[:, None, None]
        return TransformerState(layers, pos_emb, order, first, given, rotation, texts, read)

    def graph_id(self, grid: Sequence[int], position: int, coarse: bool = False) -> int:
        """Length of the cache that is read: up to the position or, if coarse, to the end of its segment."""
        if not coarse:
            return position + 1
        positions = prod(grid)
        length = -(-positions // SEGMENTS)
        return min(positions, (position // length + 1) * length)

    def file_graph_id(self, grid: Sequence[int], position: int) -> int:
        """All of the cache is read."""
        return prod(grid)

    def step(self, state: TransformerState, graph_id: int, position: Tensor) -> Tensor:
        x = state.last_input + state.pos_emb.index_select(0, position)[0]
        later = state.order[:graph_id] > position
        hidden = x.new_zeros(1, graph_id).masked_fill(later, -torch.inf)
        rotation = None if state.rotation is None else state.rotation.index_select(1, position)
        for number, (block, layer) in enumerate(zip(self.blocks, state.layers, strict=True)):
            if state.read is not None:
                x = self.texts[number].attend(x.unsqueeze(1), *state.texts[number], state.read).squeeze(1)
            x = _step(block, layer, x, position, hidden, rotation)
        features: Tensor = self.norm(x)
        return features

    def append(self, state: TransformerState, position: Tensor, embedded: Tensor) -> None:
        if state.sources is not None:
            embedded = embedded + state.sources.index_select(0, position)
        state.last_input.copy_(embedded)

    def prefill(self, state: TransformerState, grid: Sequence[int], embedded: Tensor) -> None:
        batch, _, positions = embedded.shape
        if not positions:
            return
        if state.sources is not None:
            embedded = embedded + state.sources[:positions].transpose(0, 1)
        rotation = None if state.rotation is None else state.rotation[:, :positions]
        for examples in stretches(batch, positions, embedded.device):
            past = embedded[examples].transpose(1, 2)
            x = torch.cat((state.last_input[examples, None], past[:, :-1]), 1)
            pos_emb = state.pos_emb[:positions].transpose(0, 1)
            x = x + (pos_emb if len(pos_emb) == 1 else pos_emb[examples])
            for number, (block, layer) in enumerate(zip(self.blocks, state.layers, strict=True)):
                if state.read is not None:
                    keys, values = state.texts[number]
                    x = self.texts[number].attend(x, keys[examples], values[examples], state.read[examples])
                x = _prefill(block, layer, x, examples, rotation)
        state.last_input.copy_(embedded[:, :, -1])

    def _pos_emb(self, grid: tuple[int, ...], context: Tensor | None) -> Tensor:
        """``(positions, batch or 1, hidden)``."""
        pos_emb = self.start.new_zeros(prod(grid), 1, self.channels)
        if self.positions is not None:
            pos_emb = self.positions(grid).unsqueeze(1)
        if self.context is None or context is None:
            return pos_emb
        whole = context.expand(*context.shape[:2], *grid).flatten(2)
        cond: Tensor = self.context(whole.permute(2, 0, 1))
        return pos_emb + cond

    def _rotation(self, grid: tuple[int, ...]) -> Tensor | None:
        return None if self.rotary is None else self.rotary(grid)


def _folded(block: Block, batch: int, positions: int) -> Layer:
    shape = (batch * block.heads, positions, block.hidden // block.heads)
    # Two tensors: a compiler would turn a write to a part of one into a copy of the whole.
    keys, values = block.qkv.weight.new_zeros(shape), block.qkv.weight.new_zeros(shape)
    qkv, out, wide, narrow = ((linear.weight.detach().t().contiguous(), linear.bias.detach()) for linear in block.maps)
    return Layer(qkv, out, wide, narrow, keys, values)


def _read(texts: CrossAttention, tokens: Tokens) -> tuple[Tensor, Tensor]:
    keys, values = texts.read(tokens.vectors)
    return keys.contiguous(), values.contiguous()


def _step(block: Block, layer: Layer, x: Tensor, position: Tensor, hidden: Tensor, rotation: Tensor | None) -> Tensor:
    """A block at one position: x ``(batch, hidden)``."""
    batch, heads = len(x), block.heads
    qkv = torch.addmm(layer.qkv[1], block.before_attention(x), layer.qkv[0])
    query, key, value = qkv.view(batch, 3, heads, 1, -1).unbind(1)
    query, key = rotate(query, rotation), rotate(key, rotation)
    layer.keys.index_copy_(1, position, key.reshape(batch * heads, 1, -1))
    layer.values.index_copy_(1, position, value.reshape(batch * heads, 1, -1))
    seen = hidden.shape[1]
    keys, values = layer.keys[:, :seen], layer.values[:, :seen]
    query = query.reshape(batch * heads, 1, -1)
    scores = torch.baddbmm(hidden.unsqueeze(0), query, keys.transpose(1, 2), alpha=query.shape[2] ** -0.5)
    attended = torch.bmm(scores.softmax(2), values).view(batch, -1)
    x = x + torch.addmm(layer.out[1], attended, layer.out[0])
    wide = F.gelu(torch.addmm(layer.wide[1], block.before_mlp(x), layer.wide[0]))
    return x + torch.addmm(layer.narrow[1], wide, layer.narrow[0])


def _prefill(block: Block, layer: Layer, x: Tensor, examples: slice, rotation: Tensor | None) -> Tensor:
    """A block at the first positions of some examples: x ``(examples, positions, hidden)``."""
    heads, positions = block.heads, x.shape[1]
    qkv = _linear(block.before_attention(x), layer.qkv).unflatten(2, (3, heads, -1))
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    query, key = rotate(query, rotation), rotate(key, rotation)
    rows = slice(examples.start * heads, examples.stop * heads)
    layer.keys[rows, :positions].copy_(key.flatten(0, 1))
    layer.values[rows, :positions].copy_(value.flatten(0, 1))
    attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    x = x + _linear(attended.transpose(1, 2).flatten(2), layer.out)
    return x + _linear(F.gelu(_linear(block.before_mlp(x), layer.wide)), layer.narrow)


def _linear(x: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
    return x @ weights[0] + weights[1]
