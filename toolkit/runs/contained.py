"""A run's folder has all of it inside: no links that lead out, no pipes, no devices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from toolkit.errors import ToolkitError

ADOPTED = "adopted.json"
FILES = (
    "config.yaml",
    "components.json",
    "data.json",
    "spec.json",
    "metrics.jsonl",
    "log.txt",
    "evaluation.json",
    ADOPTED,
)
FOLDERS = ("autoencoder", "priors", "codes", "samples", "base")
DEEPEST = 32
"""Folders inside one another."""


def check_folder(root: Path) -> None:
    """ToolkitError where a run's folder has links that lead out of it, or anything but files and folders.

    So all that is read or written is inside the folder, and finite.
    """
    home = root.resolve()
    try:
        for entry in _entries(root, DEEPEST):
            _check_entry(entry, home)
        for names, are, wanted in ((FILES, Path.is_file, "a file"), (FOLDERS, Path.is_dir, "a folder")):
            for path in (root / name for name in names):
                if path.exists() and not are(path):
                    raise ToolkitError(f"{path} is not {wanted}, as it must be in a run")
    except OSError as e:
        raise ToolkitError(f"run={root} cannot be read: {e}") from e


def _entries(folder: Path, left: int) -> Iterator[os.DirEntry[str]]:
    if not left:
        raise ToolkitError(f"{folder}: a run's folders are nested at most {DEEPEST} deep")
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:  # a training has just deleted it
        return
    with entries:
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(Path(entry.path), left - 1)


def _check_entry(entry: os.DirEntry[str], home: Path) -> None:
    if entry.is_symlink():
        target = Path(os.path.realpath(entry.path))
        if not (target.is_file() and home in target.parents):
            raise ToolkitError(
                f"{entry.path} is a link to {target}: a run may only link to files inside it; put the file there"
            )
    elif not (entry.is_file() or entry.is_dir()):
        raise ToolkitError(f"{entry.path} is neither a file nor a folder: a run may hold nothing else")
