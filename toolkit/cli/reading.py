"""Examples of a split for a command, read by several processes where that is worth it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from math import prod

import torch
from torch import Tensor

from toolkit.batches import Batch, split_batches
from toolkit.cli.items import MOST, Item
from toolkit.cli.named import KEY, from_bytes, to_bytes
from toolkit.dataset import Dataset, Examples
from toolkit.errors import ToolkitError
from toolkit.model import Model
from toolkit.sample import BATCH
from toolkit.workers import default_workers


def read_split(
    model: Model, examples: Examples, split: str, places: Sequence[int], workers: int | None
) -> Iterator[Batch]:
    """Examples of a split in batches on the CPU, by ``workers`` processes (None: as suits the model's device)."""
    size = max(1, min(BATCH, MOST // prod(model.bottom.spec.shape)))
    if workers is None:
        workers = default_workers(model.device, -(-len(places) // size))
    return split_batches(examples, split, torch.device("cpu"), batch_size=size, places=places, workers=workers)


def split_items(
    model: Model, dataset: Dataset, split: str, workers: int | None, limit: int | None = None
) -> list[Item]:
    """The examples of a split, at most ``limit``, to be read in their order; a batch is read when its first example is.

    ToolkitError for a split without any.
    """
    size = dataset.size(split)
    if not size:
        raise ToolkitError(f"split={split} has no examples")
    names = [dataset.example_name(split, i) for i in range(size if limit is None else min(size, limit))]
    named = _Named(dataset, max(len(os.fsencode(name)) for name in names))
    reading = _Reading(names, read_split(model, named, split, range(len(names)), workers))
    return [Item(partial(names.__getitem__, i), partial(reading.example, i)) for i in range(len(names))]


class _Named:
    """Examples of a dataset with their names, which the process knows that has read them."""

    def __init__(self, dataset: Dataset, longest: int) -> None:
        self.dataset, self.longest = dataset, longest

    def size(self, split: str) -> int:
        return self.dataset.size(split)

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        return {name: rows[0] for name, rows in self.batch(split, [index], None).items()}

    def batch(
        self, split: str, indices: Sequence[int], generators: Sequence[torch.Generator] | None
    ) -> dict[str, Tensor]:
        rows = self.dataset.batch(split, indices, generators)
        names = [self.dataset.example_name(split, index) for index in indices]
        return {**rows, KEY: to_bytes(names, self.longest)}


class _Reading:
    """Takes examples one by one out of their batches, and enters the names of those that were read."""

    def __init__(self, names: list[str], batches: Iterator[Batch]) -> None:
        self.names, self.rows = names, _rows(batches)

    def example(self, index: int) -> dict[str, Tensor]:
        row = next(self.rows)
        (self.names[index],) = from_bytes(row.pop(KEY)[None].numpy(), 1)
        return row


def _rows(batches: Iterator[Batch]) -> Iterator[dict[str, Tensor]]:
    for batch in batches:
        yield from batch.rows()
