"""Which files are trained on, and which are held out."""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from toolkit import ToolkitError
from toolkit.dataset import SPLITS

SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m2v", ".ts", ".mts", ".m2ts"),
    *(".wmv", ".flv", ".3gp", ".ogv", ".vob", ".gif", ".y4m"),
)
HELD_OUT = {"test": 5, "val": 5}
"""Percent of all files that is set aside."""


def find_videos(root: Path) -> list[str]:
    """Paths of all video files below a folder, by suffix; names that start with a dot are not seen.

    ToolkitError where there is no folder, no video in it, or a split besides the one to train on.
    """
    if not root.is_dir():
        raise ToolkitError(f"{root.absolute()}: no such folder; dataset.root=FOLDER says where the videos are")
    found = []
    for parent, folders, names in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(parent).relative_to(root)
        found += [(below / name).as_posix() for name in names if _is_video(name)]
    if not found:
        raise ToolkitError(f"{root}: there is no video file ({', '.join(SUFFIXES[:6])}, …)")
    named = {split_of(path) for path in found} - {None}
    if named and "train" not in named:
        raise ToolkitError(f"{root}: there is {' and '.join(sorted(map(str, named)))} but no train")
    return sorted(found, key=os.fsencode)


def _is_video(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def split_of(path: str) -> str | None:
    """The split that a path's first folder names, if any."""
    first, _, rest = path.partition("/")
    return first if rest and first in SPLITS else None


def set_aside(paths: Iterable[str]) -> dict[str, list[str]]:
    """The splits that folders name, and those that are missing, taken from the files to train on by a hash.

    Of the path, so that a file stays in its split when others come and go.
    """
    made: dict[str, list[str]] = {split: [] for split in SPLITS}
    for path in paths:
        made[split_of(path) or "train"].append(path)
    for split in [split for split in HELD_OUT if not made[split]]:
        chosen = _chosen(made["train"], split)
        made[split] = [path for path in made["train"] if path in chosen]
        made["train"] = [path for path in made["train"] if path not in chosen]
    return made


def _chosen(paths: list[str], split: str) -> set[str]:
    """Paths whose hash falls into the split's percent; of few paths at least one, but never all."""
    hashed = {path: int.from_bytes(sha256(os.fsencode(f"{split}/{path}")).digest()) for path in paths}
    chosen = {path for path, number in hashed.items() if number % 100 < HELD_OUT[split]}
    if not chosen and len(paths) > 1:
        chosen = {min(paths, key=hashed.__getitem__)}
    return chosen if len(chosen) < len(paths) else set(sorted(chosen)[1:])
