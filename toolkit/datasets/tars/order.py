"""Orders that are functions of a seed, and the parts that a split is divided into."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import torch


def generator_of(*keys: object) -> torch.Generator:
    """A generator that these numbers and texts alone decide."""
    digest = blake2b("\0".join(map(str, keys)).encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def permutation(size: int, *keys: object) -> list[int]:
    """The numbers below ``size`` in an order that the keys decide."""
    return torch.randperm(size, generator=generator_of(*keys)).tolist()  # type: ignore[no-any-return]


def share_of(tars: Sequence[int], shard: int, shards: int) -> list[tuple[int, int, int]]:
    """The tar files of a part, and which of the examples of each: every ``stride``-th from an offset on, as
    ``(tar, offset, stride)``.

    Where there are fewer files than parts, several parts share one.
    """
    if len(tars) >= shards:
        return [(tar, 0, 1) for tar in tars[shard::shards]]
    if not tars:
        return []
    own = shard % len(tars)
    return [(tars[own], shard // len(tars), len(range(own, shards, len(tars))))]
