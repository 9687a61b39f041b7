"""Splitting files into training, validation and test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sized
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from toolkit.dataset import SPLITS
from toolkit.errors import ToolkitError

T = TypeVar("T")

HELD_OUT = {"test": 5, "val": 5}
"""Percent of all files in each split."""


def by_hash(keys: set[str], split: str) -> set[str]:
    """Keys whose hash falls into the split's percentage; at least one of several keys, but never all."""
    hashed = {key: int.from_bytes(sha256(f"{split}/{key}".encode("utf-8", "surrogateescape")).digest()) for key in keys}
    chosen = {key for key, number in hashed.items() if number % 100 < HELD_OUT[split]}
    if not chosen and len(keys) > 1:
        chosen = {min(keys, key=hashed.__getitem__)}
    return chosen if len(chosen) < len(keys) else set(sorted(chosen)[1:])


def set_aside(
    files: Iterable[T],
    named: Callable[[T], str | None],
    key: Callable[[T], str],
    choose: Callable[[set[str], str], set[str]] = by_hash,
) -> dict[str, list[T]]:
    """Files by split, in order: those to which ``named`` gives a split; all others are for training.

    A split without named files takes 5 % of the training files, by a hash of their ``key``: of the path, so that a file
    stays in its split when others are added or removed, or of a group, such as a speaker, which then stays in one
    split. ``choose`` may select otherwise: of all keys, those of a split.
    """
    splits: dict[str, list[T]] = {split: [] for split in SPLITS}
    for file in files:
        splits[named(file) or "train"].append(file)
    for split in [split for split in HELD_OUT if not splits[split]]:
        pool = splits["train"]
        chosen = choose({key(file) for file in pool}, split)
        splits[split] = [file for file in pool if key(file) in chosen]
        splits["train"] = [file for file in pool if key(file) not in chosen]
    return splits


def folder_split(path: str) -> str | None:
    """The split named by a path's first folder, if any."""
    first, _, below = path.partition("/")
    return first if below and first in SPLITS else None


def require_train(root: Path, named: Iterable[str | None]) -> None:
    """ToolkitError where files name splits, but none of them is train."""
    names = set(named)
    others = [split for split in SPLITS if split in names]
    if others and "train" not in names:
        raise ToolkitError(f"{root}: there is {' and '.join(others)} but no train; add the folder {root / 'train'}")


def split_sizes(splits: Mapping[str, Sized]) -> str:
    """Sizes of the splits, for the log: ``90 train, 5 val, 5 test``."""
    return ", ".join(f"{len(splits[split])} {split}" for split in SPLITS)
