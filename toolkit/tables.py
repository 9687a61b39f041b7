"""A split that lies on the device as a whole, from which batches are gathered there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from toolkit.dataset import Tabled

_PLACES = ""
"""Under which a batch's places in the table stand among its draws."""


class Table:
    """A split on a device; ``random``: whether its examples have draws of their own."""

    def __init__(self, examples: Tabled, split: str, columns: dict[str, Tensor], device: torch.device) -> None:
        self.examples, self.split, self.device = examples, split, device
        self.columns = {name: column.to(device) for name, column in columns.items()}
        self.random = bool(examples.draws(split, [0], [torch.Generator()]))

    @property
    def bytes(self) -> int:
        return sum(column.nbytes for column in self.columns.values())

    def batch(self, loaded: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch of what ``load`` gave, on the device, of which nothing is asked."""
        draws = {name: value.to(self.device, non_blocking=True) for name, value in loaded.items()}
        places = draws.pop(_PLACES)
        rows = {name: column.index_select(0, places) for name, column in self.columns.items()}
        return self.examples.from_table(rows, draws)


def load(
    examples: Tabled, split: str, indices: Sequence[int], generators: Sequence[torch.Generator]
) -> dict[str, Tensor]:
    """What a batch needs besides the table, on the CPU: its places, and what is random."""
    return {_PLACES: torch.tensor(indices, dtype=torch.int64), **examples.draws(split, indices, generators)}
