"""The laws of streams, as tests that a plugin's tests inherit."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor

from toolkit.batches import Batch
from toolkit.lanes import LANES, Lane, divide, follow
from toolkit.stream_batches import StreamBatches, saved_of
from toolkit.stream_dataset import StreamDataset, Streamed
from toolkit.testing.dataset import assert_same, check_condition, check_data
from toolkit.testing.laws import Laws

SEED = 5
PARTS = (1, 2, 3, 7)
"""Numbers of parts that a split is divided into."""
STOPS = 4
"""Places at which a pass is stopped."""
BATCH, BATCHES = 3, 11


class StreamSuite(Laws):
    """Subclass it as ``class TestMine(StreamSuite)`` and build the dataset in ``make``: of some 20 to 200 training
    examples, in as many files as show how they are divided."""

    ranks: ClassVar[tuple[int, ...]] = (1, 2, 3)
    """Numbers of ranks that share the stream."""

    def make(self) -> StreamDataset:
        raise NotImplementedError

    def test_examples_are_of_the_spec(self) -> None:
        dataset = self.make()
        names = {"x", *(condition.name for condition in dataset.spec.conditions)}
        for streamed in islice(_pass(dataset), 8):
            assert set(streamed.example) == names
            check_data(streamed.example["x"], dataset.spec)
            for condition in dataset.spec.conditions:
                check_condition(streamed.example[condition.name], condition, streamed.example["x"])

    def test_the_parts_of_a_split_have_each_example_once(self) -> None:
        dataset = self.make()
        whole = {streamed.key: streamed.example for streamed in _pass(dataset)}
        assert len(whole) >= 20, f"{len(whole)} training examples are too few to see anything"
        for shards in PARTS:
            counts = Counter[str]()
            for shard in range(shards):
                for streamed in _pass(dataset, shard, shards):
                    counts[streamed.key] += 1
                    assert_same(streamed.example, whole[streamed.key], "a pass in one part and in several")
            _each_once(counts, whole.keys(), f"{shards} parts")

    def test_a_seed_decides_the_order(self) -> None:
        orders = [[streamed.key for streamed in self.make().stream("train", seed, 0, 1, None)] for seed in (1, 1, 2)]
        assert orders[0] == orders[1], "another order when asked again"
        assert orders[0] != orders[2], "another seed gives the same order"
        assert sorted(orders[0]) == sorted(orders[2])

    def test_a_pass_goes_on_from_any_state(self) -> None:
        dataset, again = self.make(), self.make()
        for shard, shards in ((0, 1), (1, 3)):
            whole = list(_pass(dataset, shard, shards))
            for stop in [*range(0, len(whole), max(1, len(whole) // STOPS)), len(whole) - 1]:
                state = json.loads(json.dumps(whole[stop].state))
                rest = list(again.stream("train", SEED, shard, shards, state))
                _same(rest, whole[stop + 1 :], f"a pass that goes on behind example {stop} of {len(whole)}")

    def test_no_example_is_lost_or_doubled_over_an_epoch(self) -> None:
        dataset = self.make()
        keys = [streamed.key for streamed in _pass(dataset)]
        for ranks in self.ranks:
            seen = Counter[tuple[int, str]]()
            for number in range(ranks * LANES):
                _read(dataset, number, ranks * LANES, Lane(), seen, epochs=2)
            for epoch in range(2):
                _each_once(_of(epoch, seen), keys, f"epoch {epoch} of {ranks} ranks")

    def test_another_number_of_ranks_loses_nothing(self) -> None:
        """Lanes are stopped at different places, and the rest is divided: twice, before both epochs are over."""
        dataset = self.make()
        keys = [streamed.key for streamed in _pass(dataset)]
        seen = Counter[tuple[int, str]]()
        lanes = [Lane()] * (self.ranks[-1] * LANES)
        for ranks, steps in ((self.ranks[0], 2), (self.ranks[-1], 1)):
            stopped = [
                _read(dataset, number, len(lanes), lane, seen, steps=(number * steps) % 4)
                for number, lane in enumerate(lanes)
            ]
            lanes = divide([Lane.read(json.loads(json.dumps(lane.plain()))) for lane in stopped], ranks * LANES)
        last = max(lane.following for lane in lanes)
        for number, lane in enumerate(lanes):
            _read(dataset, number, len(lanes), lane, seen, epochs=last + 1)
        for epoch in range(last + 1):
            _each_once(_of(epoch, seen), keys, f"epoch {epoch}")

    def test_batches_go_on_as_if_never_stopped(self) -> None:
        dataset = self.make()
        for ranks in self.ranks:
            whole = [list(islice(_batches(dataset, rank, ranks), BATCHES)) for rank in range(ranks)]
            for stop in (1, BATCHES - 4):
                parts = [_batches(dataset, rank, ranks) for rank in range(ranks)]
                for part in parts:
                    list(islice(part, stop))
                saved = json.loads(json.dumps(saved_of([part.place for part in parts])))
                for rank in range(ranks):
                    rest = islice(_batches(self.make(), rank, ranks, saved), BATCHES - stop)
                    for batch, expected in zip(rest, whole[rank][stop:], strict=True):
                        assert batch.number == expected.number
                        what = f"batches of rank {rank} of {ranks}, stopped after {stop} and not"
                        assert_same(_tensors(batch), _tensors(expected), what)

    def test_held_examples_are_always_the_same(self) -> None:
        dataset, again = self.make(), self.make()
        for split in ("val", "test"):
            assert dataset.size(split) == again.size(split) <= dataset.held
            for index in range(min(8, dataset.size(split))):
                assert_same(dataset.example(split, index, None), again.example(split, index, None))

    def test_a_worker_gets_the_same_stream(self) -> None:
        dataset = self.make()
        copy: StreamDataset = pickle.loads(pickle.dumps(dataset))
        assert copy.spec == dataset.spec
        _same(list(islice(_pass(copy), 8)), list(islice(_pass(dataset), 8)), "a copy of the dataset and the dataset")


def _pass(dataset: StreamDataset, shard: int = 0, shards: int = 1) -> Iterator[Streamed]:
    return dataset.stream("train", SEED, shard, shards, None)


def _read(
    dataset: StreamDataset,
    number: int,
    count: int,
    lane: Lane,
    seen: Counter[tuple[int, str]],
    *,
    steps: int | None = None,
    epochs: int = 0,
) -> Lane:
    """Counts what a lane reads: some examples, or all of the first epochs; returns what is left of it."""
    if steps == 0:
        return lane
    for done, (streamed, after) in enumerate(follow(dataset, SEED, number, count, lane), 1):
        epoch = after.parts[0].epoch
        if steps is None and epoch >= epochs:
            break
        seen[epoch, streamed.key] += 1
        lane = after
        if done == steps:
            break
    return lane


def _of(epoch: int, seen: Counter[tuple[int, str]]) -> Counter[str]:
    return Counter({key: count for (own, key), count in seen.items() if own == epoch})


def _each_once(counts: Counter[str], keys: Iterable[str], what: str) -> None:
    lost = [key for key in keys if key not in counts]
    doubled = [key for key, count in counts.items() if count > 1]
    assert not lost, f"{what}: {len(lost)} examples are lost, such as {lost[0]}"
    assert not doubled, f"{what}: {len(doubled)} examples come more than once, such as {doubled[0]}"


def _same(rows: Sequence[Streamed], expected: Sequence[Streamed], what: str) -> None:
    keys = [[streamed.key for streamed in part] for part in (rows, expected)]
    assert keys[0] == keys[1], f"{what}: {keys[0][:4]}, …, not {keys[1][:4]}, …"
    for streamed, other in zip(rows, expected, strict=True):
        assert_same(streamed.example, other.example, what)


def _batches(dataset: StreamDataset, rank: int, ranks: int, saved: dict[str, Any] | None = None) -> StreamBatches:
    return StreamBatches(
        dataset,
        torch.device("cpu"),
        batch_size=BATCH,
        seed=SEED,
        workers=0,
        rank=rank,
        ranks=ranks,
        saved=saved,
    )


def _tensors(batch: Batch) -> dict[str, Tensor]:
    return {"x": batch.x, **batch.conditions}
