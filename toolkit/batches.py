"""Batches of examples, in an order that is a function of seed and position."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from toolkit import interrupts
from toolkit.dataset import Examples, Tabled, collate
from toolkit.device import pins
from toolkit.distributed import all_gather_object, ranks
from toolkit.errors import Interrupted, RemoteTraceback, ToolkitError
from toolkit.lengths.known import cut_at, has_padding, is_of_one_length, lengths_of
from toolkit.lengths.mask import MASK, cut
from toolkit.order import ByLength, Generators, OfOneLength, Shuffled
from toolkit.stream_dataset import numbered
from toolkit.tables import Table, load
from toolkit.workers import default_workers

SETTLING = 1.0
"""Seconds after which the system has told of a process that was killed."""
_CAUGHT = "Caught "
"""How torch begins an error that was raised in a process that loads data."""


class Batch:
    """x ``(batch, channels, *axes)`` and its conditions; ``number`` counts the batches of a split.

    ``mask`` ``(batch, positions)`` bool says which positions along the first axis are the examples' own, where these
    are of unequal lengths; else None. ``positions`` are those of an example, on average.
    """

    __slots__ = ("conditions", "mask", "number", "positions", "x")

    def __init__(self, tensors: dict[str, Tensor], device: torch.device, number: int = 0) -> None:
        x, mask = tensors["x"], tensors.get(MASK)
        self.positions: float = prod(x.shape[2:])
        if mask is not None:  # before it is moved: a device is not asked
            self.positions = int(mask.sum()) / len(mask) * prod(x.shape[3:])
        moved = {name: value.to(device, non_blocking=True) for name, value in tensors.items()}
        self.x, self.mask = moved.pop("x"), moved.pop(MASK, None)
        self.conditions, self.number = moved, number

    def rows(self) -> Iterator[dict[str, Tensor]]:
        """Its examples, by name, each without padding."""
        longest = self.x.shape[2]
        lengths = [longest] * len(self.x) if self.mask is None else self.mask.sum(1).tolist()
        for i, length in enumerate(lengths):
            whole = self.mask is None
            known = {name: value[i : i + 1] for name, value in self.conditions.items()}
            yield {
                "x": self.x[i] if whole else self.x[i, :, :length],
                **{name: (value if whole else cut(value, length, longest))[0] for name, value in known.items()},
            }


class TrainBatches(Iterator[Batch]):
    """Endless batches in shuffled order; batch k is a function of (seed, k), so a resumed run can start at any k.

    Epoch e goes through the split in the e-th permutation; a batch may hold the end of one epoch and the start of the
    next. The examples' own randomness is seeded by (seed, epoch, index). ``waited`` counts the seconds that the caller
    spent waiting here; ``positions`` are those of an example, on average. From a ``table``, which is the training
    split on the device, the same batches are gathered there. Where examples differ in length, an epoch's batches are of
    about one length each, or of one (see ``ByLength`` and ``OfOneLength``).

    Each of ``ranks`` takes its share: their k-th batches joined are the k-th batch of one rank with ``ranks`` times the
    ``batch_size``. As the batches never end, no rank runs out before another and no example is dropped, whatever the
    split's size.
    """

    place: None = None
    """Nothing to keep: batch k is a function of k."""

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
        table: Table | None = None,
    ) -> None:
        self.device, self.waited, self.positions, self._taken = device, 0.0, 0.0, 0
        lengths, of = lengths_of(examples, "train"), (batch_size, seed, start, rank, ranks)
        order: Shuffled
        if lengths is None:
            order = Shuffled(examples.size("train"), *of)
        else:
            order = OfOneLength(lengths, *of) if is_of_one_length(examples) else ByLength(lengths, *of)
        self._padded = isinstance(order, ByLength)
        if table is None:
            self._loaded = _load(_Random(examples, "train", seed), order, device, workers)
        else:
            own = workers if table.random else 0  # places alone need no processes
            self._loaded = _load(_Draws(table.examples, table.split, seed), order, device, own, gather=table.batch)

    def __next__(self) -> Batch:
        start = time.perf_counter()
        batch = next(self._loaded)
        self.waited += time.perf_counter() - start
        if self._padded and batch.mask is None:  # another rank's may have padding, and all take the same steps
            batch.mask = torch.ones(len(batch.x), batch.x.shape[2], dtype=torch.bool, device=batch.x.device)
        self._taken += 1
        self.positions += (batch.positions - self.positions) / self._taken
        return batch


def split_batches(
    examples: Examples,
    split: str,
    device: torch.device,
    *,
    batch_size: int,
    limit: int | None = None,
    places: Sequence[int] | None = None,
    workers: int | None = None,
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[Batch]:
    """A split's first ``limit`` examples, or those at ``places``, once, in order, with nothing random.

    Of a stream's training split, those of its examples that have a number.

    Where examples are of unequal lengths and never padded, a batch ends where the length changes.

    ``workers`` are the processes that load them; None: as many as suit the device and their number.

    Each of ``ranks`` takes a stretch of the batches: joined in the order of the ranks, they are those of one rank.
    """
    places = (range(numbered(examples, split)) if places is None else places)[:limit]
    order = cut_at(places, batch_size, lengths_of(examples, split) if is_of_one_length(examples) else None)
    share = stretch(len(order), rank, ranks)
    return chosen_batches(examples, split, device, order[share.start : share.stop], workers, share.start)


def chosen_batches(
    examples: Examples,
    split: str,
    device: torch.device,
    order: Sequence[Sequence[int]],
    workers: int | None = None,
    start: int = 0,
) -> Iterator[Batch]:
    """Batches of the examples of these numbers, with nothing random, numbered from ``start``; ``workers`` as above."""
    workers = default_workers(device, len(order)) if workers is None else workers
    return _load(_Plain(examples, split), order, device, workers, start)


def as_it_is(batch: Any) -> Any:
    """A batch that was put together where it was loaded."""
    return batch


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
    source: _Source,
    order: Iterable[Sequence[Any]],
    device: torch.device,
    workers: int | None,
    start: int = 0,
    gather: Callable[[dict[str, Tensor]], dict[str, Tensor]] = as_it_is,
) -> Iterator[Batch]:
    """Batches in an order, numbered from ``start``, by ``workers`` processes (None: as many as suit the device).

    ``gather`` makes a batch of what is loaded.
    """
    if workers is None:
        workers = default_workers(device)
    loader = DataLoader(
        _Guarded(source),
        batch_sampler=order,  # type: ignore[arg-type]
        collate_fn=as_it_is,
        num_workers=workers,
        pin_memory=pins(device),
        prefetch_factor=4 if workers else None,
        worker_init_fn=outlive_signals,
        # its own, or each new loader would advance the generator that training uses
        generator=torch.Generator(),
    )
    for number, tensors in enumerate(unless_killed(loader), start):
        if isinstance(tensors, Mistake):
            raise ToolkitError(tensors.text) from RemoteTraceback(tensors.trace)
        yield Batch(gather(tensors), device, number)


def unless_killed(loader: DataLoader[Any]) -> Iterator[Any]:
    """What it loads. A process that is killed while it hands over a batch is told as any other that is killed."""
    try:
        yield from loader
    except (ConnectionError, EOFError) as e:
        if not loader.num_workers or str(e).startswith(_CAUGHT):
            raise
        time.sleep(SETTLING)  # torch says by which signal, as soon as the system has told it
        raise RuntimeError("DataLoader worker (pid unknown) exited unexpectedly") from e


@dataclass(frozen=True)
class Mistake:
    """A ToolkitError in a worker, which sends it in place of a batch: torch would put the traceback into its text."""

    text: str
    trace: str


class _Guarded(Dataset[Any]):
    """Batches, or in a worker the ToolkitError that one raises. The loader asks for all of a batch at once."""

    def __init__(self, source: _Source) -> None:
        self.source = source

    def __getitems__(self, keys: Sequence[Any]) -> Any:
        try:
            return self.source.batch(keys)
        except ToolkitError as e:
            if get_worker_info() is None:
                raise
            return Mistake(str(e), traceback.format_exc())


def outlive_signals(worker: int) -> None:
    """A terminal or a scheduler signals all processes, and the training has a step to finish."""
    interrupts.ignore_once()


class _Source(Protocol):
    """What a loader asks for batches."""

    def batch(self, keys: Sequence[Any], /) -> dict[str, Tensor]: ...


class _Plain:
    """Batches of a split by index."""

    def __init__(self, examples: Examples, split: str) -> None:
        self.examples, self.split, self.padded = examples, split, has_padding(examples)

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        return _checked(_batch(self.examples, self.split, indices, None), self.split, self.padded)


class _Random:
    """Batches of a split by (epoch, index)."""

    def __init__(self, examples: Examples, split: str, seed: int) -> None:
        self.examples, self.split, self.seed, self.padded = examples, split, seed, has_padding(examples)

    def batch(self, keys: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        batch = _batch(self.examples, self.split, [index for _, index in keys], Generators(self.seed, keys))
        return _checked(batch, self.split, self.padded)


class _Draws:
    """What is random in batches of a split by (epoch, index), and their places in the split's table."""

    def __init__(self, examples: Tabled, split: str, seed: int) -> None:
        self.examples, self.split, self.seed = examples, split, seed

    def batch(self, keys: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        return load(self.examples, self.split, [index for _, index in keys], Generators(self.seed, keys))


def _batch(
    examples: Examples, split: str, indices: Sequence[int], generators: Sequence[torch.Generator] | None
) -> dict[str, Tensor]:
    if hasattr(examples, "batch"):
        batch: dict[str, Tensor] = examples.batch(split, indices, generators)
        return batch
    return collate(examples, split, indices, generators)


def _checked(batch: dict[str, Tensor], split: str, padded: bool) -> dict[str, Tensor]:
    """The batch. ToolkitError where there is padding that nothing was asked whether it takes."""
    if MASK in batch and not padded:
        raise ToolkitError(
            f"examples of {split} in one batch differ in length, and their dataset says they do not: give them one"
            " length, or say the length of each (Dataset.lengths)"
        )
    return batch
