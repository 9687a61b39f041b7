"""Parts that implement what an interface leaves to choice, as a stranger would write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, final

from torch import Tensor, nn

from toolkit import CodeSpec, Condition
from toolkit.causal.network import Trunk
from toolkit.priors.autoregressive import AutoregressivePrior


class SumsState(NamedTuple):
    total: Tensor
    """The sum of all inputs so far, ``(batch, channels)``."""
    context: Tensor | None
    """``(positions, batch, channels)``."""


@final
class Sums(Trunk):
    """A linear map of the sum of all earlier inputs; a prefix is a single sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = self.features = channels
        self.out = nn.Linear(channels, channels)

    def forward(self, embedded: Tensor, context: Tensor | None = None) -> Tensor:
        flat = embedded.flatten(2)
        before = (flat.cumsum(2) - flat).view_as(embedded)
        features: Tensor = self.out((before if context is None else before + context).movedim(1, -1))
        return features

    def init(self, batch: int, grid: Sequence[int], context: Tensor | None = None) -> SumsState:
        if context is not None:
            context = context.expand(*context.shape[:2], *grid).flatten(2).permute(2, 0, 1)
        return SumsState(self.out.weight.new_zeros(batch, self.channels), context)

    def step(self, state: SumsState, graph_id: int, position: Tensor) -> Tensor:
        x = state.total if state.context is None else state.total + state.context.index_select(0, position)[0]
        features: Tensor = self.out(x)
        return features

    def append(self, state: SumsState, position: Tensor, embedded: Tensor) -> None:
        state.total.add_(embedded)

    def prefill(self, state: SumsState, grid: Sequence[int], embedded: Tensor) -> None:
        state.total.add_(embedded.sum(2))


@final
class SumsPrior(AutoregressivePrior):
    """A code depends on how often each came before it.

    Args:
        hidden: channels.
    """

    def __init__(self, code_spec: CodeSpec, conditions: tuple[Condition, ...], *, hidden: int = 8) -> None:
        super().__init__(code_spec, conditions, Sums(hidden), head=8, condition_dropout=0.1)
