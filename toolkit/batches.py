"""Batches of examples, in an order that is a function of seed and position."""

from __future__ import annotations

import hashlib
import struct
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate, get_worker_info

from toolkit.errors import RemoteTraceback, ToolkitError

GPU_WORKERS = 4
"""Default number of loading processes with a GPU; on a CPU they would take the cores that train."""


class Examples(Protocol):
    """What can be batched: a dataset, or the codes of one."""

    def size(self, split: str) -> int: ...

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]: ...


class Batch:
    """x ``(batch, channels, *axes)`` and its conditions; ``number`` counts the batches of a split."""

    __slots__ = ("conditions", "number", "x")

    def __init__(self, tensors: dict[str, Tensor], device: torch.device, number: int = 0) -> None:
        moved = {name: value.to(device, non_blocking=True) for name, value in tensors.items()}
        self.x = moved.pop("x")
        self.conditions, self.number = moved, number


class TrainBatches(Iterator[Batch]):
    """Endless batches in shuffled order; batch k is a function of (seed, k), so a resumed run can start at any k.

    Epoch e goes through the split in the e-th permutation; a batch may hold the end of one epoch and the start of the
    next. The examples' own randomness is seeded by (seed, epoch, index). ``waited`` counts the seconds that the caller
    spent waiting here; ``positions`` are those of an example of the last batch.

    Each of ``ranks`` takes its share: their k-th batches joined are the k-th batch of one rank with ``ranks`` times the
    ``batch_size``. As the batches never end, no rank runs out before another and no example is dropped, whatever the
    split's size.
    """

    def __init__(
        self,
        examples: Examples,
        device: torch.device,
        *,
        batch_size: int,
        seed: int,
        start: int = 0,
        workers: int | None = None,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.device, self.waited, self.positions = device, 0.0, 0
        order = _Shuffled(examples.size("train"), batch_size, seed, start, rank, ranks)
        self._loaded = _load(_Random(examples, "train", seed), order, device, workers)

    def __next__(self) -> Batch:
        start = time.perf_counter()
        batch = next(self._loaded)
        self.waited += time.perf_counter() - start
        self.positions = batch.x[0, 0].numel()
        return batch


def split_batches(
    examples: Examples,
    split: str,
    device: torch.device,
    *,
    batch_size: int,
    limit: int | None = None,
    workers: int | None = None,
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[Batch]:
    """A split's first ``limit`` examples once, in order, with nothing random.

    Each of ``ranks`` takes a stretch of the batches: joined in the order of the ranks, they are those of one rank.
    """
    size = examples.size(split)
    size = size if limit is None else min(limit, size)
    order = [range(start, min(start + batch_size, size)) for start in range(0, size, batch_size)]
    share = stretch(len(order), rank, ranks)
    return _load(_Plain(examples, split), order[share.start : share.stop], device, workers, share.start)


def stretch(size: int, rank: int, ranks: int) -> range:
    """The rank's part of ``range(size)``: the parts follow one another, and their lengths differ by one at most."""
    return range(size * rank // ranks, size * (rank + 1) // ranks)


def _load(
    examples: Dataset[Any], order: Iterable[Sequence[Any]], device: torch.device, workers: int | None, start: int = 0
) -> Iterator[Batch]:
    """Batches in an order, numbered from ``start``, by ``workers`` processes (None: as many as suit the device)."""
    if workers is None:
        workers = GPU_WORKERS if device.type == "cuda" else 0
    loader = DataLoader(
        _Guarded(examples),
        batch_sampler=order,  # type: ignore[arg-type]
        collate_fn=_collate,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        prefetch_factor=4 if workers else None,
        # its own, or each new loader would advance the generator that training uses
        generator=torch.Generator(),
    )
    for number, tensors in enumerate(loader, start):
        if isinstance(tensors, _Mistake):
            raise ToolkitError(tensors.text) from RemoteTraceback(tensors.trace)
        yield Batch(tensors, device, number)


@dataclass(frozen=True)
class _Mistake:
    """A ToolkitError in a worker, which sends it in place of a batch: torch would put the traceback into its text."""

    text: str
    trace: str


class _Guarded(Dataset[Any]):
    """Examples, or in a worker the ToolkitError that one raises."""

    def __init__(self, examples: Dataset[Any]) -> None:
        self.examples = examples

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.examples[key]
        except ToolkitError as e:
            if get_worker_info() is None:
                raise
            return _Mistake(str(e), traceback.format_exc())


def _collate(examples: list[Any]) -> Any:
    return next((x for x in examples if isinstance(x, _Mistake)), None) or default_collate(examples)


class _Plain(Dataset[Any]):
    """Examples of a split by index."""

    def __init__(self, examples: Examples, split: str) -> None:
        self.examples, self.split = examples, split

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.examples.example(self.split, index, None)


class _Random(Dataset[Any]):
    """Examples of a split by (epoch, index)."""

    def __init__(self, examples: Examples, split: str, seed: int) -> None:
        self.examples, self.split, self.seed = examples, split, seed

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        packed = hashlib.blake2b(struct.pack("<3q", self.seed, *key), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(packed, "little") >> 1)
        return self.examples.example(self.split, key[1], generator)


class _Shuffled(Sampler[list[tuple[int, int]]]):
    """The (epoch, index) pairs of every batch of a rank from ``start`` on."""

    def __init__(self, size: int, batch_size: int, seed: int, start: int, rank: int, ranks: int) -> None:
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.position, self.stride = (start * ranks + rank) * batch_size, ranks * batch_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        start, epoch, order = self.position, -1, []
        while True:
            batch = []
            for position in range(start, start + self.batch_size):
                if position // self.size != epoch:
                    epoch = position // self.size
                    order = self._permutation(epoch)
                batch.append((epoch, order[position % self.size]))
            start += self.stride
            yield batch

    def _permutation(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % (1 << 63))
        return torch.randperm(self.size, generator=generator).tolist()  # type: ignore[no-any-return]
