"""The suite of streams catches what goes wrong in parts of its kind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from planted import assert_catches
from torch import Tensor

from toolkit.datasets.arrays import ArrayDataset
from toolkit.datasets.tars.order import permutation
from toolkit.spec import DataSpec
from toolkit.stream_dataset import State, StreamDataset, Streamed
from toolkit.testing.stream import StreamSuite


class Numbers(StreamDataset, ArrayDataset):
    """Example i is i."""

    def __init__(self) -> None:
        self.spec = DataSpec(1, (1,), levels=64)

    def stream(self, split: str, seed: int, shard: int, shards: int, state: State | None) -> Iterator[Streamed]:
        own = self.order(seed)[shard::shards] if split == "train" else []
        for place in range(self.begin(state), len(own)):
            yield Streamed(f"{own[place]}", self.numbered(own[place]), {"place": place + 1})

    def order(self, seed: int) -> list[int]:
        return permutation(40, seed)

    def begin(self, state: State | None) -> int:
        return 0 if state is None else state["place"]

    def numbered(self, number: int) -> dict[str, Tensor]:
        return {"x": torch.full((1, 1), number)}


class Losing(Numbers):
    """The last example of a part is lost where there are several."""

    def stream(self, split: str, seed: int, shard: int, shards: int, state: State | None) -> Iterator[Streamed]:
        own = list(super().stream(split, seed, shard, shards, state))
        yield from own[:-1] if shards > 1 else own


class Doubling(Numbers):
    """Parts overlap."""

    def stream(self, split: str, seed: int, shard: int, shards: int, state: State | None) -> Iterator[Streamed]:
        yield from super().stream(split, seed, shard, max(1, shards - 1), state)


class Late(Numbers):
    """The state is that before the example."""

    def begin(self, state: State | None) -> int:
        return max(0, super().begin(state) - 1)


class Fixed(Numbers):
    """The order is always the same."""

    def order(self, seed: int) -> list[int]:
        return permutation(40)


class Whimsical(Numbers):
    """Examples are others each time."""

    def numbered(self, number: int) -> dict[str, Tensor]:
        return {"x": torch.randint(64, (1, 1))}


class OneTooMany(Numbers):
    def numbered(self, number: int) -> dict[str, Tensor]:
        return {"x": torch.full((1, 1), number + 64)}


class StreamCase(StreamSuite):
    ranks = (1, 2)

    def __init__(self, part: type[Numbers] = Numbers) -> None:
        self.of = part

    def make(self) -> StreamDataset:
        return self.of()


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (OneTooMany, "examples are of the spec"),
        (Losing, "the parts of a split have each example once"),
        (Doubling, "the parts of a split have each example once"),
        (Losing, "no example is lost or doubled over an epoch"),
        (Doubling, "another number of ranks loses nothing"),
        (Late, "a pass goes on from any state"),
        (Late, "batches go on as if never stopped"),
        (Fixed, "a seed decides the order"),
        (Whimsical, "the parts of a split have each example once"),
    ],
)
def test_the_suite_catches(broken: type[Numbers], law: str) -> None:
    assert_catches(StreamCase(), StreamCase(broken), law)
