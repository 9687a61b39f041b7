"""A transformer over the parts of a flat grid: all positions of a part at once, given the parts before it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import prod, sqrt
from typing import NamedTuple, cast, final

import torch
from torch import Tensor, nn

from toolkit.causal.network import Trunk, stretches
from toolkit.errors import ToolkitError
from toolkit.nn.attention import Block, GridPositions
from toolkit.nn.resize import Resize


class ScalesState(NamedTuple):
    """Caches of keys and values, and what is known of the parts so far."""

    caches: list[tuple[Tensor, Tensor]]
    """By block, keys and values ``(batch, heads, positions, channels of a head)``."""
    pos_emb: Tensor
    """Position embedding and context: ``(positions, batch or 1, hidden)``."""
    embedded: Tensor
    """The inputs, ``(batch, positions, hidden)``."""
    coarser: Tensor
    """The sum of the parts before, ``(batch, hidden, *finest)``."""
    features: Tensor
    """Of the parts that have begun, ``(batch, positions, hidden)``."""


@final
class ScalesTransformer(Trunk):
    """Blocks in which a position attends to its own part and those before it (VAR, Tian et al. 2024, section 3.2).

    The input of a part's positions is the sum of all parts before, each through a linear map of its own, interpolated
    or averaged to the part's grid; a learned start stands for that of the first part. To it are added embeddings of
    part and position, and the context. So a position's features depend on no input of its own part, and those of a
    part are computed at once, when its first position is reached. One part alone has only what is known beside it.
    """

    blocks: list[Block]

    def __init__(
        self,
        parts: Sequence[tuple[int, ...]],
        *,
        context: int = 0,
        hidden: int = 256,
        layers: int = 8,
        heads: int = 8,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if len({len(part) for part in parts}) != 1:
            raise ValueError(f"the codes' grid has parts {tuple(parts)}: parts of as many axes are needed")
        self.parts = tuple(parts)
        self.finest = tuple(max(sizes) for sizes in zip(*parts, strict=True))
        self.channels = self.features = hidden
        self.start = nn.Parameter(0.02 * torch.randn(hidden))
        self.positions = nn.ModuleList(GridPositions(part, hidden) for part in parts)
        self.context = nn.Linear(context, hidden) if context else None
        self.maps = nn.ModuleList(nn.Linear(hidden, hidden) for _ in parts[1:])
        self.up = nn.ModuleList(Resize(part, self.finest) for part in parts[:-1])
        self.down = nn.ModuleList(Resize(self.finest, part) for part in parts[1:])
        self.blocks = nn.ModuleList(Block(hidden, heads, dropout) for _ in range(layers))  # type: ignore[assignment]
        self.norm = nn.LayerNorm(hidden)
        self.numbers: Tensor
        numbers = [number for number, part in enumerate(parts) for _ in range(prod(part))]
        self.register_buffer("numbers", torch.tensor(numbers), persistent=False)

    def forward(self, embedded: Tensor, context: Tensor | None = None) -> Tensor:
        grid, given = embedded.shape[2:], embedded.flatten(2).transpose(1, 2)
        # The sum of no codes, so that there is a gradient to embeddings that nothing reads, if of 0.
        inputs = [self._first(given).expand(len(given), prod(self._parts(grid)[0]), -1)]
        coarser = given.new_zeros(())
        for number, codes in enumerate(given.split(self._sizes(grid), 1)[:-1]):
            coarser = coarser + self._spread(number, codes)
            inputs.append(self._input(number + 1, coarser))
        x = torch.cat(inputs, 1) + self._pos_emb(grid, context).transpose(0, 1)
        seen = None if len(self.parts) == 1 else self.numbers.unsqueeze(1) >= self.numbers
        for block in self.blocks:
            x = block(x, causal=False, seen=seen)
        features: Tensor = self.norm(x).unflatten(1, grid)
        return features

    def blocks_in_order(self) -> list[Block]:
        return list(self.blocks)

    def init(self, batch: int, grid: Sequence[int], context: Tensor | None = None) -> ScalesState:
        pos_emb, positions = self._pos_emb(tuple(grid), context).contiguous(), prod(grid)
        caches = []
        for block in self.blocks:
            shape = (batch, block.heads, positions, block.hidden // block.heads)
            caches.append((pos_emb.new_zeros(shape), pos_emb.new_zeros(shape)))
        embedded = pos_emb.new_zeros(batch, positions, self.channels)
        coarser = pos_emb.new_zeros(batch, self.channels, *self.finest)
        return ScalesState(caches, pos_emb, embedded, coarser, torch.zeros_like(embedded))

    def graph_id(self, grid: Sequence[int], position: int, coarse: bool = False) -> int:
        """One more than the number of the part that begins at the position; 0 within a part."""
        starts = self._starts(grid)
        return starts.index(position) + 1 if position in starts else 0

    def step(self, state: ScalesState, graph_id: int, position: Tensor) -> Tensor:
        if graph_id:
            self._enter(state, graph_id - 1)
        return state.features.index_select(1, position).squeeze(1)

    def append(self, state: ScalesState, position: Tensor, embedded: Tensor) -> None:
        state.embedded.index_copy_(1, position, embedded.unsqueeze(1))

    def together(self, grid: Sequence[int], graph_id: int) -> int:
        """The positions of a part, at its start."""
        return self._sizes(grid)[graph_id - 1] if graph_id else 1

    def step_part(self, state: ScalesState, graph_id: int, positions: Tensor) -> Tensor:
        self._enter(state, graph_id - 1)
        return state.features.index_select(1, positions)

    def append_part(self, state: ScalesState, positions: Tensor, embedded: Tensor) -> None:
        state.embedded.index_copy_(1, positions, embedded)

    def prefill(self, state: ScalesState, grid: Sequence[int], embedded: Tensor) -> None:
        """As ``Trunk.prefill``; where a part is known to some position only, its features are computed, too."""
        known = embedded.shape[2]
        state.embedded[:, :known] = embedded.transpose(1, 2)
        for number, start in enumerate(self._starts(grid)):
            if start < known:
                self._enter(state, number)

    def _enter(self, state: ScalesState, number: int) -> None:
        """Computes the features of a part, all those before which are known."""
        batch, positions = state.embedded.shape[:2]
        sizes = [positions] if len(self.parts) == 1 else [prod(part) for part in self.parts]
        start, size = sum(sizes[:number]), sizes[number]
        if number:
            before = slice(start - sizes[number - 1], start)
            state.coarser.add_(self._spread(number - 1, state.embedded[:, before]))
        pos_emb = state.pos_emb[start : start + size].transpose(0, 1)
        for examples in stretches(batch, size, pos_emb.device):
            rows = state.embedded[examples]
            x = (
                self._input(number, state.coarser[examples])
                if number
                else self._first(rows).expand(len(rows), size, -1)
            )
            x = x + (pos_emb if len(pos_emb) == 1 else pos_emb[examples])
            for block, (keys, values) in zip(self.blocks, state.caches, strict=True):
                x = block.extend(x, keys[examples], values[examples], start)
            state.features[examples, start : start + size] = self.norm(x)

    def _first(self, given: Tensor) -> Tensor:
        """The input of the first part, ``(batch, 1, hidden)``."""
        return self.start + given[:, :0].sum(1, keepdim=True)

    def _spread(self, number: int, codes: Tensor) -> Tensor:
        """A part's inputs ``(batch, positions, hidden)`` on the finest grid, ``(batch, hidden, *finest)``."""
        mapped: Tensor = self.maps[number](codes)
        return cast(Tensor, self.up[number](mapped.transpose(1, 2).unflatten(2, self.parts[number])))

    def _input(self, number: int, coarser: Tensor) -> Tensor:
        """Of a part after the first, ``(batch, positions, hidden)``, of about unit variance."""
        down: Tensor = self.down[number - 1](coarser)
        return down.flatten(2).transpose(1, 2) / sqrt(number)

    def _pos_emb(self, grid: tuple[int, ...], context: Tensor | None) -> Tensor:
        """``(positions, batch or 1, hidden)``."""
        by_part = [positions(part) for positions, part in zip(self.positions, self._parts(grid), strict=True)]
        pos_emb = torch.cat(by_part).unsqueeze(1)
        if self.context is None or context is None:
            return pos_emb
        whole = context.expand(*context.shape[:2], *grid).flatten(2)
        cond: Tensor = self.context(whole.permute(2, 0, 1))
        return pos_emb + cond

    def _parts(self, grid: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Those of a grid; ToolkitError where it has others."""
        if len(self.parts) == 1:
            return (tuple(grid),)
        if tuple(grid) != (len(self.numbers),):
            raise ToolkitError(f"a grid of {tuple(grid)}: this network has the parts {self.parts}, flat")
        return self.parts

    def _sizes(self, grid: Sequence[int]) -> list[int]:
        return [prod(part) for part in self._parts(grid)]

    def _starts(self, grid: Sequence[int]) -> list[int]:
        return [0, *accumulate(self._sizes(grid)[:-1])]
