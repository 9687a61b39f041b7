"""Splitting files into training, validation and test."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sized
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from toolkit.dataset import SPLITS
from toolkit.datasets.files.once import log_once
from toolkit.datasets.files.walk import visible
from toolkit.errors import ToolkitError

T = TypeVar("T")

logger = logging.getLogger(__name__)

WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Names of folders and lists, in lower case, to the split that they say."""
LOOKALIKE = re.compile(
    rf"(?:{'|'.join(WORDS)})"
    r"(?:[\s_.-]*(?:sets?|splits?|data|images?|imgs?|audio|wavs?|sounds?|videos?|clips?|files?|clean|other|val|\d))+",
    re.IGNORECASE,
)
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


def split_named(name: str) -> str | None:
    """The split that a name says: Train, training, valid, validation, dev, eval and testing are words for one, too."""
    return WORDS.get(name.lower())


def folder_split(path: str) -> str | None:
    """The split named by a path's first folder, if any, by the words of ``split_named``."""
    first, _, below = path.partition("/")
    return split_named(first) if below else None


def split_folders(root: Path) -> dict[str, str]:
    """The folders in ``root`` that are splits, by split; logged where a folder has another name than its split.

    ToolkitError where two folders say one split, or one looks like a split and is none, such as ``test_images``: it
    would be taken for a class.
    """
    splits: dict[str, str] = {}
    for name in sorted(visible(os.listdir(root)), key=os.fsencode):
        if not ((split := split_named(name)) or LOOKALIKE.fullmatch(name)) or not (root / name).is_dir():
            continue
        if split is None:
            raise ToolkitError(
                f"{root / name}: looks like a split and is none; call it train, val or test, or otherwise"
            )
        if split in splits:
            raise ToolkitError(f"{root}: {splits[split]} and {name} both name the split {split}; rename one of them")
        splits[split] = name
    renamed = [f"{name} is read as {split}" for split, name in splits.items() if name != split]
    if renamed:
        log_once(logger, f"{root}: {', '.join(renamed)}")
    return {split: splits[split] for split in SPLITS if split in splits}


def require_train(root: Path, named: Iterable[str | None]) -> None:
    """ToolkitError where files name splits, but none of them is train, or as of ``split_folders``."""
    folders, names = split_folders(root), set(named)
    others = [folders.get(split, split) for split in SPLITS if split in names]
    if others and "train" not in names:
        raise ToolkitError(f"{root}: there is {' and '.join(others)} but no train; add the folder {root / 'train'}")


def split_sizes(splits: Mapping[str, Sized]) -> str:
    """Sizes of the splits, for the log: ``90 train, 5 val, 5 test``."""
    return ", ".join(f"{len(splits[split])} {split}" for split in SPLITS)
