"""Which examples each batch of training has, and the random numbers that are theirs."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import overload

import torch
from torch.utils.data import Sampler


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
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % (1 << 63))
        return torch.randperm(self.size, generator=generator).tolist()  # type: ignore[no-any-return]
