"""The interface of datasets that come as a stream, one example after the other."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.dataset import Dataset, Examples
from toolkit.errors import ToolkitError

State = Mapping[str, int]
"""Where in a pass a stream is, as plain numbers: checkpoints keep it as JSON."""
FIRST = 64
"""Training examples that can be asked for by number."""


class Streamed(NamedTuple):
    """An example of a stream."""

    key: str
    """What is its own in its split, such as a file and a name in it."""
    example: dict[str, Tensor]
    """As ``Dataset.example`` gives it."""
    state: State
    """From which the pass goes on behind it."""


class StreamDataset(Dataset):
    """A dataset whose training examples can only be read one after the other, such as a server's tar files.

    Training takes them in parts, of which each rank and each process that loads data reads some, and keeps the state of
    every part in its checkpoints. Validation and test examples are the first ``held`` of their split, which are kept in
    memory. Stage two encodes it as it comes (``prior_trainer.encode=always``), or is given packed data or codes.

    Laws, checked by toolkit.testing.StreamSuite:
      the parts of a split, joined, have each example once, for any number of parts
      a pass is a function of its seed, and another seed gives another order
      a pass goes on from any state as one that was never stopped
      no example is lost or doubled for any number of ranks and workers, nor where the number of ranks changes
    """

    held: int = 1024
    """Validation and test examples kept in memory, at most."""

    @abstractmethod
    def stream(self, split: str, seed: int, shard: int, shards: int, state: State | None) -> Iterator[Streamed]:
        """One pass over part ``shard`` of ``shards`` of a split, from a state of this pass on (None: its start).

        The order, and what is random in a training example, are functions of the seed and of the key; in other splits
        nothing but the order is. For one seed and any number of shards, the parts together are the split. A split that
        is not there is empty.
        """

    def size(self, split: str) -> int:
        """Of the validation and test split. ToolkitError for the training split, which nobody has counted."""
        if split == "train":
            raise ToolkitError(
                f"{type(self).__name__} is a stream: its training examples are not counted, and have no numbers, which"
                " split=train and prior_trainer.encode=once ask for; toolkit pack writes one that has"
            )
        return len(self._held[split])

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        """A held example; of the training split, one of the first in it."""
        rows = self._held[split]
        if not 0 <= index < len(rows):
            raise IndexError(f"{split} has {len(rows)} examples with a number, no example {index}")
        return rows[index]

    @cached_property
    def _held(self) -> dict[str, list[dict[str, Tensor]]]:
        """The first examples of each split, as they are without a seed's order and draws."""
        counts = {"train": FIRST, "val": self.held, "test": self.held}
        return {split: self.first(split, count) for split, count in counts.items()}

    def numbered(self, split: str) -> int:
        """How many examples of a split can be asked for by number."""
        return len(self._held[split])

    def first(self, split: str, count: int) -> list[dict[str, Tensor]]:
        """The first examples of a split."""
        return [streamed.example for streamed in islice(self.stream(split, 0, 0, 1, None), count)]


def numbered(examples: Examples, split: str) -> int:
    """How many examples of a split can be asked for by number: all, unless it is a stream."""
    return examples.numbered(split) if isinstance(examples, StreamDataset) else examples.size(split)
