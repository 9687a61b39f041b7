"""Which examples each batch of training has, and the random numbers that are theirs."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from itertools import count
from typing import overload

import torch
from torch.utils.data import Sampler

SPREAD = 0.1
"""By which share a length is counted longer than it is, at most, where batches are of about one length."""


class Generators(Sequence[torch.Generator]):
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


class Shuffled(Sampler[list[tuple[int, int]]]):
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
        return torch.randperm(self.size, generator=self._random(epoch)).tolist()  # type: ignore[no-any-return]

    def _random(self, epoch: int) -> torch.Generator:
        """An epoch's own."""
        return torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % (1 << 63))


class ByLength(Shuffled):
    """The same for examples of unequal lengths, so that those of a batch are of about one length.

    Each epoch sorts its examples by length, each counted as up to ``SPREAD`` longer than it is, so that batches differ
    from epoch to epoch; it cuts them where all ranks' batches end, and shuffles the batches. The first and the last of
    an epoch may be the parts of a batch of two epochs: these are the longest examples.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, start: int, rank: int, ranks: int) -> None:
        super().__init__(len(lengths), batch_size, seed, start, rank, ranks)
        self.lengths = torch.tensor(lengths, dtype=torch.float64)

    def _permutation(self, epoch: int) -> list[int]:
        random = self._random(epoch)
        spread = 1 + SPREAD * torch.rand(self.size, generator=random, dtype=torch.float64)
        longest_first: list[int] = (self.lengths * spread).argsort(descending=True, stable=True).tolist()
        whole = self.stride  # the batches of all ranks together
        first = min(-epoch * self.size % whole, self.size)
        last = first + (self.size - first) % whole
        batches = [longest_first[start : start + whole] for start in range(last, self.size, whole)]
        shuffled = torch.randperm(len(batches), generator=random).tolist()
        ends = longest_first[:first], longest_first[first:last]
        return [*ends[0], *(index for number in shuffled for index in batches[number]), *ends[1]]


class OfOneLength(Shuffled):
    """The same for examples of unequal lengths, so that those of a batch are of one length: for parts that take no
    padding.

    The examples of a length are passed through in permutations of their own. Each epoch has as many batches of a length
    as its examples have made whole by then, in shuffled order: what is left counts for the next. So each example is
    seen once in an epoch on average, and those of a rare length come together, several times in a batch.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, start: int, rank: int, ranks: int) -> None:
        super().__init__(len(lengths), batch_size, seed, start, rank, ranks)
        groups: dict[int, list[int]] = {length: [] for length in sorted(set(lengths))}
        for index, length in enumerate(lengths):
            groups[length].append(index)
        self.of_length = list(groups.values())
        self._last: dict[int, tuple[int, list[int]]] = {}

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        skipped, first = divmod(self.position, self.stride)
        for epoch in count():
            batches = self._batches(epoch)
            for group, number in batches[skipped:]:
                start = number * self.stride + first
                yield [self._key(group, place) for place in range(start, start + self.batch_size)]
            skipped = max(0, skipped - len(batches))

    def _batches(self, epoch: int) -> list[tuple[int, int]]:
        """Those of all ranks: which length's, and the how manieth of that."""
        whole = [
            (group, number)
            for group, own in enumerate(self.of_length)
            for number in range(epoch * len(own) // self.stride, (epoch + 1) * len(own) // self.stride)
        ]
        order: list[int] = torch.randperm(len(whole), generator=self._random(epoch)).tolist()
        return [whole[place] for place in order]

    def _key(self, group: int, place: int) -> tuple[int, int]:
        """Which pass through a length's examples a place is in, and its example."""
        own = self.of_length[group]
        number, place = divmod(place, len(own))
        return number, own[self._pass(group, number)[place]]

    def _pass(self, group: int, number: int) -> list[int]:
        """The permutation of a pass; that of the last one of each length is kept."""
        if self._last.get(group, (-1, []))[0] != number:
            self._last[group] = number, self._permuted(group, number)
        return self._last[group][1]

    def _permuted(self, group: int, number: int) -> list[int]:
        packed = hashlib.blake2b(struct.pack("<3q", self.seed, group, number), digest_size=8).digest()
        random = torch.Generator().manual_seed(int.from_bytes(packed, "little") >> 1)
        return torch.randperm(len(self.of_length[group]), generator=random).tolist()  # type: ignore[no-any-return]
