"""Names of examples: those of the files that they come from, kept beside their codes and given back to what is decoded.

In a file of codes they are bytes ``(examples, longest)``, UTF-8, filled up with zeros.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from toolkit.datasets.files import find_files
from toolkit.errors import ToolkitError

KEY = "files"
"""The tensor of names in a file of codes."""


def find(words: Sequence[Path], suffixes: tuple[str, ...]) -> list[Path]:
    """The files that are named and those in folders that are named.

    In folders only those with one of the suffixes count, if there are any suffixes. ToolkitError for a folder without.
    """
    files = []
    for word in words:
        if not word.is_dir():
            files.append(word)
            continue
        some = find_files(word, suffixes or ("",))
        if not some:
            these = f" ({', '.join(suffixes)})" if suffixes else ""
            raise ToolkitError(f"{word}: no files in it that this run's data can be read from{these}")
        files += [word / name for name in some]
    return files


def names_of(files: Sequence[Path], words: Sequence[Path]) -> list[str]:
    """Paths of files below the folder that holds all that was named, with ``/`` between."""
    folders = [word if word.is_dir() else word.parent for word in words]
    top = os.path.commonpath([os.path.abspath(folder) for folder in folders])
    return [Path(os.path.relpath(os.path.abspath(file), top)).as_posix() for file in files]


def to_bytes(names: Sequence[str], longest: int) -> Tensor:
    """Names ``(n, longest)``, uint8."""
    rows = np.zeros((len(names), longest), np.uint8)
    for row, name in zip(rows, map(os.fsencode, names), strict=True):
        row[: len(name)] = np.frombuffer(name, np.uint8)
    return torch.from_numpy(rows)


def from_bytes(rows: np.ndarray, n: int) -> list[str]:
    """The names of n examples again; ValueError where these are none."""
    if rows.ndim != 2 or rows.dtype != np.uint8 or len(rows) != n:
        raise ValueError(f"its {KEY} are no names of {n} examples: {rows.dtype} of shape {rows.shape}")
    return [os.fsdecode(bytes(row).partition(b"\0")[0]) for row in rows]


def targets(names: Sequence[str], suffix: str, stem: str) -> list[PurePosixPath]:
    """Where examples of these names are written, below a folder and never above it, no two to one place.

    A name keeps its folders and its stem; the suffix is that of the files that are written. Without a name it is
    ``stem-0000`` and so on.
    """
    taken: set[PurePosixPath] = set()
    paths = []
    for i, name in enumerate(names):
        parts = [part for part in name.split("/") if part not in ("", ".", "..")] or [f"{stem}-{i:04d}"]
        folder, last = PurePosixPath(*parts[:-1]), parts[-1]
        numbered = (f"{last}-{number}{suffix}" for number in count(i))
        options = chain((f"{PurePosixPath(last).stem}{suffix}", f"{last}{suffix}"), numbered)
        path = next(folder / option for option in options if folder / option not in taken)
        taken.add(path)
        paths.append(path)
    return paths
