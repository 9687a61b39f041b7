from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NoReturn

import pytest
import torch
from messages import assert_names
from torch import Tensor

from toolkit.batches import Batch, TrainBatches, split_batches
from toolkit.dataset import collate
from toolkit.errors import ToolkitError
from toolkit.failures import explain

CPU = torch.device("cpu")


class Numbers:
    """Example i is (i, a random number); its label is i % 3."""

    def __init__(self, size: int) -> None:
        self.sizes = {"train": size, "val": 7, "test": 0}

    def size(self, split: str) -> int:
        return self.sizes[split]

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        drawn = 0.0 if generator is None else torch.rand((), generator=generator, dtype=torch.float64)
        return {"x": torch.tensor([index, drawn], dtype=torch.float64), "label": torch.tensor(index % 3)}


class AtOnce(Numbers):
    """Reads batches, and keeps which."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.asked: list[list[int]] = []

    def batch(
        self, split: str, indices: Sequence[int], generators: Sequence[torch.Generator] | None
    ) -> dict[str, Tensor]:
        self.asked.append(list(indices))
        return collate(self, split, indices, generators)


class TornBatches(Numbers):
    def batch(self, split: str, indices: Sequence[int], generators: object) -> dict[str, Tensor]:
        raise ToolkitError("ToolkitError: folder/7.png is cut short: take it away")


class Torn(Numbers):
    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        raise ToolkitError("ToolkitError: folder/7.png is cut short: take it away")


def batches(size: int = 10, batch_size: int = 4, seed: int = 0, start: int = 0, workers: int = 0) -> TrainBatches:
    return TrainBatches(Numbers(size), CPU, batch_size=batch_size, seed=seed, start=start, workers=workers)


def taken(iterator: Iterator[Batch], n: int) -> Tensor:
    return torch.stack([batch.x for batch in islice(iterator, n)])


def test_a_batch_holds_data_and_conditions() -> None:
    batch = next(batches())
    assert batch.x.shape == (4, 2)
    assert set(batch.conditions) == {"label"}
    assert torch.equal(batch.conditions["label"], batch.x[:, 0].long() % 3)


def test_batches_are_a_function_of_the_seed() -> None:
    assert torch.equal(taken(batches(), 12), taken(batches(), 12))
    assert not torch.equal(taken(batches(), 12), taken(batches(seed=1), 12))


@pytest.mark.parametrize("start", [1, 2, 3, 5, 11])
@pytest.mark.parametrize("batch_size", [1, 4, 10, 23])
def test_going_on_at_k_gives_the_same_as_passing_through(start: int, batch_size: int) -> None:
    whole = taken(batches(batch_size=batch_size), start + 4)
    assert torch.equal(taken(batches(batch_size=batch_size, start=start), 4), whole[start:])


@pytest.mark.parametrize("size", [10, 37])
@pytest.mark.parametrize(("ranks", "batch_size"), [(2, 4), (3, 1), (4, 25)])
@pytest.mark.parametrize("start", [0, 3])
def test_ranks_batches_joined_are_one_ranks(size: int, ranks: int, batch_size: int, start: int) -> None:
    """Whatever the split's size: no rank has fewer batches, and no example is dropped."""
    each = [
        taken(TrainBatches(Numbers(size), CPU, batch_size=batch_size, seed=0, start=start, rank=r, ranks=ranks), 9)
        for r in range(ranks)
    ]
    assert torch.equal(torch.cat(each, 1), taken(batches(size, batch_size * ranks, start=start), 9))


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 25])
def test_every_epoch_has_every_example_once(batch_size: int) -> None:
    order = taken(batches(batch_size=batch_size), 30 // batch_size + 20).flatten(0, 1)[:, 0]
    epochs = order[: len(order) // 10 * 10].view(-1, 10)
    assert len(epochs) > 1
    assert all(sorted(epoch.tolist()) == list(range(10)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])


def test_what_is_random_in_an_example_differs_by_epoch() -> None:
    seen = taken(batches(batch_size=5), 8).flatten(0, 1)
    assert len(seen[:, 1].unique()) == len(seen)


def test_the_split_does_not_depend_on_the_batch_size() -> None:
    assert torch.equal(taken(batches(batch_size=4), 5).flatten(0, 1), taken(batches(batch_size=5), 4).flatten(0, 1))


@pytest.mark.parametrize("start", [0, 3])
def test_workers_change_nothing(start: int) -> None:
    assert torch.equal(taken(batches(start=start, workers=2), 6), taken(batches(start=start), 6))


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_leaves_trainings_random_numbers_alone(workers: int) -> None:
    before = torch.get_rng_state()
    taken(batches(workers=workers), 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_waiting_is_counted() -> None:
    loading = batches()
    assert loading.waited == 0
    next(loading)
    assert loading.waited > 0


class Breaking(Numbers):
    """Its connection breaks: to the process that loads it, or in there to where it gets its data."""

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        raise ConnectionResetError("no network")


def test_a_killed_process_that_hands_over_a_batch_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(self: object) -> NoReturn:
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr("toolkit.batches.SETTLING", 0.0)
    with pytest.raises(ConnectionResetError, match="no network"):
        next(TrainBatches(Breaking(10), CPU, batch_size=2, seed=0, workers=1))
    monkeypatch.setattr("torch.utils.data.dataloader._MultiProcessingDataLoaderIter._next_data", killed)
    with pytest.raises(RuntimeError) as error:
        next(TrainBatches(Numbers(10), CPU, batch_size=2, seed=0, workers=1))
    assert_names(explain(error.value) or "", "a process that loads data was killed")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("torn", "where"), [(Torn, "in example"), (TornBatches, "in batch")])
def test_a_bad_example_is_told_as_it_is(torn: type[Numbers], where: str, workers: int) -> None:
    loading = TrainBatches(torn(10), CPU, batch_size=2, seed=0, workers=workers)
    with pytest.raises(ToolkitError, match=r"^ToolkitError: folder/7.png is cut short: take it away$") as error:
        next(loading)
    assert where in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_that_are_read_at_once_are_the_same(workers: int) -> None:
    examples = AtOnce(10)
    loading = TrainBatches(examples, CPU, batch_size=4, seed=0, workers=workers)
    assert torch.equal(taken(loading, 6), taken(batches(), 6))
    made = list(split_batches(examples, "val", CPU, batch_size=3, workers=workers))
    plain = list(split_batches(Numbers(10), "val", CPU, batch_size=3))
    assert all(torch.equal(a.x, b.x) for a, b in zip(made, plain, strict=True))
    if not workers:  # which have copies of their own
        assert examples.asked[-3:] == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_batchs_generators_are_a_sequence_of_the_examples_own() -> None:
    seen: list[Sequence[torch.Generator]] = []

    class Keeping(Numbers):
        def batch(self, split: str, indices: Sequence[int], generators: Sequence[torch.Generator]) -> dict[str, Tensor]:
            seen.append(generators)
            return {"x": torch.zeros(len(indices))}

    next(TrainBatches(Keeping(10), CPU, batch_size=4, seed=0, workers=0))
    [generators] = seen
    assert len(generators) == 4
    assert generators[-1] is generators[3]
    assert generators[1:3] == [generators[1], generators[2]]
    assert len({generator.initial_seed() for generator in generators}) == 4
    with pytest.raises(IndexError):
        generators[4]


@pytest.mark.parametrize(("limit", "sizes"), [(None, [3, 3, 1]), (4, [3, 1]), (100, [3, 3, 1]), (0, [])])
def test_a_split_in_order(limit: int | None, sizes: list[int]) -> None:
    made = list(split_batches(Numbers(10), "val", CPU, batch_size=3, limit=limit))
    assert [len(batch.x) for batch in made] == sizes
    places = [place for batch in made for place in batch.x[:, 0].tolist()]
    assert places == list(range(sum(sizes)))
    assert all(not batch.x[:, 1].any() for batch in made)


def test_an_empty_split_has_no_batches() -> None:
    assert list(split_batches(Numbers(10), "test", CPU, batch_size=3)) == []
