"""Batches of examples, in an order that is a function of seed and position."""

from __future__ import annotations

import hashlib
import struct
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, overload

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from toolkit import interrupts
from toolkit.dataset import Examples, collate
from toolkit.device import pins
from toolkit.distributed import all_gather_object, ranks
from toolkit.errors import Interrupted, RemoteTraceback, ToolkitError

GPU_WORKERS = 4
"""Default number of loading processes with a GPU; on a CPU they would take the cores that train."""

SETTLING = 1.0
"""Seconds after which the system has told of a process that was killed."""
_CAUGHT = "Caught "
"""How torch begins an error that was raised in a process that loads data."""


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
        self.positions = prod(batch.x.shape[2:])
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


def stoppable(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches; of several ranks, all stop together, with Interrupted, once a signal has asked one of them to.

    They agree behind the last batch of each, to which all must come. On one rank a signal is not waited for.
    """
    for batch in batches:
        if ranks() > 1 and interrupts.asked():
            break
        yield batch
    if ranks() > 1 and (stop := max(all_gather_object(interrupts.asked()))):
        raise Interrupted(stop)


def stretch(size: int, rank: int, ranks: int) -> range:
    """The rank's part of ``range(size)``: the parts follow one another, and their lengths differ by one at most."""
    return range(size * rank // ranks, size * (rank + 1) // ranks)


def _load(
    batches: _Plain | _Random, order: Iterable[Sequence[Any]], device: torch.device, workers: int | None, start: int = 0
) -> Iterator[Batch]:
    """Batches in an order, numbered from ``start``, by ``workers`` processes (None: as many as suit the device)."""
    if workers is None:
        workers = GPU_WORKERS if device.type != "cpu" else 0
    loader = DataLoader(
        _Guarded(batches),
        batch_sampler=order,  # type: ignore[arg-type]
        collate_fn=_as_it_is,
        num_workers=workers,
        pin_memory=pins(device),
        prefetch_factor=4 if workers else None,
        worker_init_fn=_outlive_signals,
        # its own, or each new loader would advance the generator that training uses
        generator=torch.Generator(),
    )
    for number, tensors in enumerate(_unless_killed(loader), start):
        if isinstance(tensors, _Mistake):
            raise ToolkitError(tensors.text) from RemoteTraceback(tensors.trace)
        yield Batch(tensors, device, number)


def _unless_killed(loader: DataLoader[Any]) -> Iterator[Any]:
    """What it loads. A process that is killed while it hands over a batch is told as any other that is killed."""
    try:
        yield from loader
    except (ConnectionError, EOFError) as e:
        if not loader.num_workers or str(e).startswith(_CAUGHT):
            raise
        time.sleep(SETTLING)  # torch says by which signal, as soon as the system has told it
        raise RuntimeError("DataLoader worker (pid unknown) exited unexpectedly") from e


@dataclass(frozen=True)
class _Mistake:
    """A ToolkitError in a worker, which sends it in place of a batch: torch would put the traceback into its text."""

    text: str
    trace: str


class _Guarded(Dataset[Any]):
    """Batches, or in a worker the ToolkitError that one raises. The loader asks for all of a batch at once."""

    def __init__(self, batches: _Plain | _Random) -> None:
        self.batches = batches

    def __getitems__(self, keys: Sequence[Any]) -> Any:
        try:
            return self.batches.batch(keys)
        except ToolkitError as e:
            if get_worker_info() is None:
                raise
            return _Mistake(str(e), traceback.format_exc())


def _as_it_is(batch: Any) -> Any:
    return batch


def _outlive_signals(worker: int) -> None:
    """A terminal or a scheduler signals all processes, and the training has a step to finish."""
    interrupts.ignore_once()


class _Plain:
    """Batches of a split by index."""

    def __init__(self, examples: Examples, split: str) -> None:
        self.examples, self.split = examples, split

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        return _batch(self.examples, self.split, indices, None)


class _Random:
    """Batches of a split by (epoch, index)."""

    def __init__(self, examples: Examples, split: str, seed: int) -> None:
        self.examples, self.split, self.seed = examples, split, seed

    def batch(self, keys: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        return _batch(self.examples, self.split, [index for _, index in keys], _Generators(self.seed, keys))


def _batch(
    examples: Examples, split: str, indices: Sequence[int], generators: Sequence[torch.Generator] | None
) -> dict[str, Tensor]:
    if hasattr(examples, "batch"):
        batch: dict[str, Tensor] = examples.batch(split, indices, generators)
        return batch
    return collate(examples, split, indices, generators)


class _Generators(Sequence[torch.Generator]):
    """The generators of a batch's examples, by (epoch, index).

    One is seeded when it is first asked for: for all of them that takes longer than to read a batch from an array.
    """

    def __init__(self, seed: int, keys: Sequence[tuple[int, int]]) -> None:
        self.seed, self.keys = seed, keys
        self.seeded: dict[int, torch.Generator] = {}

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, place: int) -> torch.Generator: ...

    @overload
    def __getitem__(self, place: slice) -> list[torch.Generator]: ...

    def __getitem__(self, place: int | slice) -> torch.Generator | list[torch.Generator]:
        places = range(len(self.keys))[place]
        return self._of(places) if isinstance(places, int) else [self._of(each) for each in places]

    def _of(self, place: int) -> torch.Generator:
        if place not in self.seeded:
            packed = hashlib.blake2b(struct.pack("<3q", self.seed, *self.keys[place]), digest_size=8).digest()
            self.seeded[place] = torch.Generator().manual_seed(int.from_bytes(packed, "little") >> 1)
        return self.seeded[place]


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
