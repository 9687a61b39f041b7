"""An entropy coder without a file, which checks that numbers are read as they were written."""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from torch import Tensor

from toolkit.entropy import EntropyCoder


class Entry(NamedTuple):
    probs: Tensor | int
    values: Tensor


@final
class Tape(EntropyCoder):
    """Keeps what is written. ``rewound`` reads it, and asks for the very probabilities that it was written with."""

    def __init__(self, entries: list[Entry] | None = None) -> None:
        self.entries, self.reading = entries or [], entries is not None

    def rewound(self) -> Tape:
        return Tape(list(self.entries))

    def nats(self) -> Tensor:
        """What was written costs, ``(batch,)`` float64."""
        costs = [_cost(entry) for entry in self.entries]
        return torch.stack(costs).sum(0)

    def code(self, probs: Tensor, values: Tensor | None) -> Tensor:
        return self._coded(probs.detach().clone(), values)

    def code_uniform(self, size: int, like: Tensor, values: Tensor | None) -> Tensor:
        return self._coded(size, values)

    def _coded(self, probs: Tensor | int, values: Tensor | None) -> Tensor:
        if not self.reading:
            assert values is not None, "nothing is given to write"
            assert values.dim() == 2, "numbers are (batch, count)"
            assert isinstance(probs, int) or probs.shape[:2] == values.shape, "probabilities are not the numbers'"
            self.entries.append(Entry(probs, values.detach().clone()))
            return values
        entry = self.entries.pop(0)
        same = probs == entry.probs if isinstance(probs, int) else torch.equal(probs, torch.as_tensor(entry.probs))
        assert same, "what is read has not the probabilities that it was written with"
        return entry.values


def _cost(entry: Entry) -> Tensor:
    values = entry.values.long()
    if isinstance(entry.probs, int):
        return (
            torch.full((len(values),), values.shape[1], dtype=torch.float64) * torch.tensor(entry.probs).double().log()
        )
    probs = entry.probs.double() / entry.probs.double().sum(-1, keepdim=True)
    return -probs.gather(2, values.unsqueeze(2)).log().sum((1, 2))
