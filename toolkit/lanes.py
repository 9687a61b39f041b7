"""How a stream is divided: into lanes, of which each rank has as many, whatever the number of its workers.

A lane reads its part of a pass, an epoch, then its part of the next. Batch k of a rank is the next of lane k % LANES,
so that any number of workers that divides LANES gives the same batches. What is left of a run's lanes can be read by
another number of them: no example is lost, and none comes twice in an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from toolkit.errors import ToolkitError
from toolkit.stream_dataset import State, StreamDataset, Streamed

LANES = 8
"""Of each rank."""
IDLE = 1000
"""Passes after which a lane without any example is given up."""


class Part(NamedTuple):
    """A part of an epoch that is to be read."""

    epoch: int
    shard: int
    shards: int
    state: State | None
    """From where on; None: all of it."""


class Lane(NamedTuple):
    """What a lane still reads: some parts, and then its own of all epochs from ``following`` on."""

    parts: tuple[Part, ...] = ()
    following: int = 0

    def plain(self) -> list[Any]:
        """The same as JSON."""
        parts = [[*part[:3], None if part.state is None else dict(part.state)] for part in self.parts]
        return [self.following, parts]

    @classmethod
    def read(cls, values: Sequence[Any]) -> Lane:
        """The inverse; ValueError, TypeError or KeyError where the values are not of a lane."""
        following, parts = values
        read = []
        for epoch, shard, shards, state in parts:
            known = None if state is None else {str(name): int(value) for name, value in state.items()}
            read.append(Part(int(epoch), int(shard), int(shards), known))
        return cls(tuple(read), int(following))


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of a pass."""
    return (seed * 1_000_003 + epoch) % (1 << 63)


def follow(dataset: StreamDataset, seed: int, number: int, count: int, lane: Lane) -> Iterator[tuple[Streamed, Lane]]:
    """The examples of lane ``number`` of ``count`` without end, each with what the lane reads behind it."""
    idle = 0
    while True:
        if not lane.parts:
            lane = Lane((Part(lane.following, number, count, None),), lane.following + 1)
        part, *others = lane.parts
        idle += 1
        pass_seed = epoch_seed(seed, part.epoch)
        for streamed in dataset.stream("train", pass_seed, part.shard, part.shards, part.state):
            idle = 0
            yield streamed, Lane((part._replace(state=streamed.state), *others), lane.following)
        lane = Lane(tuple(others), lane.following)
        if idle > IDLE:
            raise ToolkitError(
                f"the stream has fewer examples than there are parts of it, {LANES} for each rank: pack it"
                " (toolkit pack), or take fewer ranks"
            )


def divide(lanes: Sequence[Lane], count: int) -> list[Lane]:
    """What is left of some lanes, for another number of them: every epoch that one of them has begun is finished in its
    parts of before, and the next is divided anew."""
    following = max((lane.following for lane in lanes), default=0)
    parts: list[list[Part]] = [[] for _ in range(count)]
    for number, lane in enumerate(lanes):
        later = [Part(epoch, number, len(lanes), None) for epoch in range(lane.following, following)]
        parts[number % count] += [*lane.parts, *later]
    return [Lane(tuple(own), following) for own in parts]
