"""A causal network that predicts all depths of a step at once, each depth some steps behind the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.causal.code_network import CodeNetwork
from toolkit.causal.context import Context
from toolkit.causal.network import Trunk
from toolkit.nn.codebook import upcast


class DelayedState(NamedTuple):
    """State of a network while codes are sampled."""

    trunk: Any
    last_input: Tensor
    """The sum of the embedded codes of the current step, ``(batch, channels)``."""
    tables: list[Tensor]
    inner: list[Tensor]
    """None: no code of a step sees another."""
    heads: list[tuple[Tensor, Tensor]]
    there: Tensor
    """1 where a depth has a code at a step, else 0: ``(depth, steps)``."""


@final
class DelayedNetwork(CodeNetwork):
    """A distribution over codes ``(batch, depth, *grid)`` by patterns over their depths (MusicGen, Copet et al. 2023,
    arXiv:2306.05284, section 2.2).

    At step s are the codes of depth d at position ``s - d * delay`` in raster order, for all d, each given all codes of
    the steps before. Those of one step are independent given these, so that a product of their probabilities is exact,
    and a step costs one pass of the trunk, whatever the depth. With a delay of 0 (*parallel*) all codes of a position
    are independent given the positions before; with 1 (*delay*) a code sees those of the depths before it at its own
    position, too. Where a depth has no code yet, or no more, its embedding is 0. The trunk is of one axis, the steps.
    """

    def __init__(self, trunk: Trunk, codebook_sizes: tuple[int, ...], *, delay: int, head: int = 256) -> None:
        super().__init__()
        if not codebook_sizes:
            raise ValueError("a causal network needs codes, but the depth is 0: choose a quantizer with a codebook")
        self.codebook_sizes, self.trunk, self.delay = codebook_sizes, trunk, delay
        self.tables = nn.ModuleList(nn.Embedding(size, trunk.channels) for size in codebook_sizes)
        self.proj = nn.Linear(trunk.features, head)
        self.heads = nn.ModuleList(nn.Linear(head, size) for size in codebook_sizes)
        for table in self.tables.parameters():
            nn.init.normal_(table, std=1 / sqrt(len(codebook_sizes)))

    def steps(self, positions: int) -> int:
        """From the first depth's first code to the last depth's last."""
        return positions + self.lag(len(self.codebook_sizes) - 1)

    def lag(self, depth: int) -> int:
        """Steps from a position's first code to that of a depth."""
        return depth * self.delay

    def forward(self, codes: Tensor, context: Context | None = None) -> tuple[Tensor, ...]:
        """Logits of codes ``(batch, depth, *grid)``: for each depth ``(batch, *grid, codebook_size)``.

        ``context`` ``(batch, channels, steps or 1)``.
        """
        positions, behind = prod(codes.shape[2:]), self.lag(len(self.codebook_sizes) - 1)
        embedded = codes.new_zeros((), dtype=self.proj.weight.dtype)
        for depth, (table, of_depth) in enumerate(zip(self.tables, codes.flatten(2).unbind(1), strict=True)):
            lag = self.lag(depth)
            embedded = embedded + F.pad(table(of_depth).transpose(1, 2), (lag, behind - lag))
        features = self.proj(self.trunk(embedded, context).relu()).relu()
        parts = [features[:, self.lag(depth) :][:, :positions] for depth in range(len(self.heads))]
        return tuple(head(part).unflatten(1, codes.shape[2:]) for head, part in zip(self.heads, parts, strict=True))

    if TYPE_CHECKING:
        __call__ = forward

    def log_prob(self, codes: Tensor, context: Context | None = None) -> Tensor:
        """Nats ``(batch,)``; at least float32."""
        nats = []
        for depth, logits in enumerate(self(codes, context)):
            cost = F.cross_entropy(upcast(logits).movedim(-1, 1), codes[:, depth], reduction="none")
            nats.append(cost.flatten(1).sum(1))
        return -torch.stack(nats).sum(0)

    def delayed(self, codes: Tensor, empty: int) -> Tensor:
        """Codes ``(batch, depth, positions)`` by steps, ``(batch, depth, steps)``; ``empty`` where there is none."""
        behind = self.lag(len(self.codebook_sizes) - 1)
        lags = map(self.lag, range(codes.shape[1]))
        padded = [
            F.pad(part, (lag, behind - lag), value=empty) for part, lag in zip(codes.unbind(1), lags, strict=True)
        ]
        return torch.stack(padded, 1)

    def aligned(self, codes: Tensor) -> Tensor:
        """Codes ``(batch, depth, steps)`` by positions."""
        positions = codes.shape[2] - self.lag(codes.shape[1] - 1)
        parts = [part[:, self.lag(depth) :][:, :positions] for depth, part in enumerate(codes.unbind(1))]
        return torch.stack(parts, 1)

    def init(self, batch: int, grid: Sequence[int], context: Context | None = None) -> DelayedState:
        (steps,) = grid
        weight = self.proj.weight
        positions = steps - self.lag(len(self.codebook_sizes) - 1)
        there = self.delayed(weight.new_ones(1, len(self.codebook_sizes), positions), 0)[0]
        return DelayedState(
            self.trunk.init(batch, grid, context),
            weight.new_zeros(batch, self.trunk.channels),
            [table.weight for table in self.tables],  # type: ignore[misc]
            [],
            [(head.weight, head.bias) for head in self.heads],  # type: ignore[misc]
            there,
        )

    def prefill(self, state: DelayedState, grid: Sequence[int], codes: Tensor) -> None:
        """As ``CodeNetwork.prefill``, where no depth lags behind."""
        if codes.shape[2] and self.steps(0):
            raise NotImplementedError("the first steps of a pattern with a delay are not the first positions")
        rows = [table(part) for table, part in zip(self.tables, codes.unbind(1), strict=True)]
        self.trunk.prefill(state.trunk, grid, torch.stack(rows).sum(0).transpose(1, 2))

    def step(self, state: DelayedState, graph_id: int, position: Tensor) -> Tensor:
        return F.linear(self.trunk.step(state.trunk, graph_id, position).relu(), self.proj.weight, self.proj.bias)

    def step_part(self, state: DelayedState, graph_id: int, positions: Tensor) -> Tensor:
        features = self.trunk.step_part(state.trunk, graph_id, positions)
        return F.linear(features.relu(), self.proj.weight, self.proj.bias)

    def logits(self, state: DelayedState, feature: Tensor, depth: int) -> Tensor:
        """``(batch, codebook_sizes[depth])``, whatever the other codes of the step are."""
        return F.linear(feature.relu(), *state.heads[depth])

    def append(self, state: DelayedState, feature: Tensor, position: Tensor, depth: int, codes: Tensor) -> Tensor:
        rows = state.tables[depth].index_select(0, codes) * state.there[depth].index_select(0, position)
        embedded = state.last_input.copy_(rows) if depth == 0 else state.last_input.add_(rows)
        if depth + 1 == len(state.tables):
            self.trunk.append(state.trunk, position, embedded)
        return feature
