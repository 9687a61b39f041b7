"""Training batches of a stream, with a state that goes on where the last batch ended."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from toolkit.batches import Batch, Mistake, as_it_is, outlive_signals, unless_killed
from toolkit.device import pins
from toolkit.distributed import all_gather_object
from toolkit.errors import RemoteTraceback, ToolkitError
from toolkit.lanes import LANES, Lane, divide, follow
from toolkit.stream_dataset import StreamDataset
from toolkit.workers import default_workers

KEY = "stream"
"""Among a checkpoint's facts."""


class Place(NamedTuple):
    """Where a rank is in a stream: the batches that it has taken, and its lanes."""

    taken: int
    lanes: tuple[Lane, ...]


class StreamBatches(Iterator[Batch]):
    """Endless batches of a stream's training split; from a saved place on they are those of a run never stopped.

    Each of ``ranks`` takes other examples. ``workers`` load them (None: as many as suit the device); as many are taken
    as divide ``LANES``, and the batches are the same for any number. ``saved``: what a checkpoint has under ``KEY``.
    Where that is of another number of ranks, what is left of its epochs is divided among these, and ``note`` is told.
    ``waited`` and ``positions`` are as those of ``TrainBatches``.
    """

    def __init__(
        self,
        dataset: StreamDataset,
        device: torch.device,
        *,
        batch_size: int,
        seed: int,
        workers: int | None = None,
        rank: int = 0,
        ranks: int = 1,
        saved: Mapping[str, Any] | None = None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.device, self.waited, self.positions = device, 0.0, 0
        self.place = _start(saved, rank, ranks, note)
        workers = default_workers(device) if workers is None else workers
        source = _Source(dataset, seed, batch_size, rank, ranks, self.place)
        self._loaded = _load(source, device, max(n for n in range(LANES + 1) if n <= workers and not LANES % max(1, n)))

    def __next__(self) -> Batch:
        start = time.perf_counter()
        number, tensors, lane = next(self._loaded)
        self.waited += time.perf_counter() - start
        lanes = list(self.place.lanes)
        lanes[number % LANES] = Lane.read(lane)
        self.place = Place(number + 1, tuple(lanes))
        batch = Batch(tensors, self.device, number)
        self.positions = prod(batch.x.shape[2:])
        return batch


def facts_of(place: Place | None) -> dict[str, Any]:
    """What a checkpoint keeps of the places of all ranks, which call this together; nothing of what is no stream."""
    return {} if place is None else {KEY: saved_of(all_gather_object(place))}


def saved_of(places: Sequence[Place]) -> dict[str, Any]:
    """The places of all ranks as JSON."""
    return {"taken": places[0].taken, "ranks": [[lane.plain() for lane in place.lanes] for place in places]}


def _start(saved: Mapping[str, Any] | None, rank: int, ranks: int, note: Callable[[str], None]) -> Place:
    """This rank's place. ToolkitError where what is saved is of no stream."""
    if saved is None:
        return Place(0, (Lane(),) * LANES)
    try:
        taken, before = int(saved["taken"]), [[Lane.read(lane) for lane in own] for own in saved["ranks"]]
    except (KeyError, TypeError, ValueError) as e:
        raise ToolkitError(f"the checkpoint's place in the stream cannot be read: {e}") from e
    if len(before) == ranks and all(len(own) == LANES for own in before):
        return Place(taken, tuple(before[rank]))
    lanes = divide([lane for own in before for lane in own], ranks * LANES)
    note(
        f"the stream was read by {len(before)} ranks and goes on with {ranks}: what is left of the epochs that they"
        " have begun is divided among them, and no example is lost or read twice; the batches are others than theirs"
    )
    return Place(0, tuple(lanes[rank * LANES : (rank + 1) * LANES]))


class _Source(IterableDataset[Any]):
    """A worker's batches: every W-th, each from its lane, with its number and what the lane reads next."""

    def __init__(self, dataset: StreamDataset, seed: int, batch_size: int, rank: int, ranks: int, place: Place) -> None:
        self.dataset, self.seed, self.batch_size = dataset, seed, batch_size
        self.rank, self.ranks, self.place = rank, ranks, place

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        number, stride = self.place.taken + (info.id if info else 0), info.num_workers if info else 1
        lanes: dict[int, Iterator[Any]] = {}
        while True:
            own = number % LANES
            if own not in lanes:
                lanes[own] = follow(
                    self.dataset, self.seed, self.rank * LANES + own, self.ranks * LANES, self.place.lanes[own]
                )
            try:
                rows = list(islice(lanes[own], self.batch_size))
                yield number, default_collate([streamed.example for streamed, _ in rows]), rows[-1][1].plain()
            except ToolkitError as e:
                if info is None:
                    raise
                yield Mistake(str(e), traceback.format_exc())
            number += stride


def _load(source: _Source, device: torch.device, workers: int) -> Iterator[tuple[int, dict[str, Tensor], Any]]:
    loader = DataLoader(
        source,
        batch_size=None,
        collate_fn=as_it_is,
        num_workers=workers,
        pin_memory=pins(device),
        prefetch_factor=4 if workers else None,
        worker_init_fn=outlive_signals,
        generator=torch.Generator(),
    )
    for loaded in unless_killed(loader):
        if isinstance(loaded, Mistake):
            raise ToolkitError(loaded.text) from RemoteTraceback(loaded.trace)
        number, tensors, lane = loaded
        yield number, tensors, lane
