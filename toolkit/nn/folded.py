"""A table that is a function of weights, computed once while these stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor
from torch._subclasses import FakeTensor


@final
class Folded:
    """Keeps the table of the weights that it was last asked for. It is no state: it can be computed again."""

    def __init__(self) -> None:
        self._table: Tensor | None = None
        self._weights: object = None

    def table(self, weights: Sequence[Tensor], compute: Callable[[], Tensor]) -> Tensor:
        """``compute()``, or what it gave for these weights.

        Computed each time where it needs a gradient, in a graph, and where it cannot be told whether weights changed.
        """
        graph = torch.compiler.is_compiling() or torch.compiler.is_exporting()
        if torch.is_grad_enabled() or graph or any(not _comparable(weight) for weight in weights):
            return compute()
        now = [(weight.data_ptr(), weight._version, weight.dtype, weight.device) for weight in weights]
        if self._table is None or self._weights != now:
            table = compute()
            if isinstance(table, FakeTensor):
                return table
            self._table, self._weights = table, now
        return self._table

    def clear(self) -> None:
        """Forgets the table, as before weights change in a way that leaves no trace, such as in a replayed graph."""
        self._table = self._weights = None


def _comparable(weight: Tensor) -> bool:
    return not (weight.is_inference() or weight.is_meta or isinstance(weight, FakeTensor))
