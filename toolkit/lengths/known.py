"""How long a dataset's examples are, and which of them go into one batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any


def has_padding(examples: Any) -> bool:
    """Whether its batches may have padding; see ``Dataset.one_length``."""
    return any(lengths_of(examples, split) for split in ("train", "val", "test")) and not is_of_one_length(examples)


def is_of_one_length(examples: Any) -> bool:
    """Whether examples of unequal lengths are batched with those of their own length alone."""
    return bool(getattr(examples, "one_length", False))


def lengths_of(examples: Any, split: str) -> Sequence[int] | None:
    """Of each of a split's examples, the positions along its first axis; None where all have the same."""
    lengths = getattr(examples, "lengths", None)
    return lengths(split) if callable(lengths) else None  # older datasets have attributes of that name


def by_length(lengths: Sequence[int], limit: int | None = None) -> list[int]:
    """The first ``limit`` examples, the shortest first: neighbors are batched with little padding."""
    return sorted(range(len(lengths))[:limit], key=lengths.__getitem__)


def cut_at(places: Sequence[int], batch_size: int, lengths: Sequence[int] | None) -> list[Sequence[int]]:
    """Places as batches of at most so many; with ``lengths``, those of a batch have one length."""
    if lengths is None:
        return [places[start : start + batch_size] for start in range(0, len(places), batch_size)]
    runs = (list(run) for _, run in groupby(places, key=lengths.__getitem__))
    return [batch for run in runs for batch in cut_at(run, batch_size, None)]
