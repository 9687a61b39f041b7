"""What lies in a folder, whoever may read it."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from toolkit.datasets.files.walk import find_files

SAMPLE = 1 << 16
"""Bytes at either end of a file by which it is compared with others of its size."""


class Survey(NamedTuple):
    """The files below a folder that are not hidden."""

    paths: list[str]
    """Below the folder, with ``/`` between, sorted."""
    size: int
    """Bytes of all."""
    empty: list[str]
    """Those without a byte."""
    copies: list[tuple[str, str]]
    """Files with another one of the same size, beginning and end: the copy and the first of its kind."""

    def suffixes(self) -> Counter[str]:
        """How many files there are of each suffix, in lower case."""
        return Counter(os.path.splitext(path)[1].lower() or "without suffix" for path in self.paths)


def survey(root: Path) -> Survey:
    """Looks at all files below a folder; linked folders are entered once."""
    sizes = {path: size for path in find_files(root, ("",)) if (size := _size(root / path)) is not None}
    alike = defaultdict(list)
    for path, size in sizes.items():
        alike[size].append(path)
    copies = [pair for size, paths in alike.items() if size and len(paths) > 1 for pair in _copies(root, paths)]
    return Survey([*sizes], sum(sizes.values()), alike.get(0, []), sorted(copies))


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


def _copies(root: Path, paths: Iterable[str]) -> list[tuple[str, str]]:
    first: dict[bytes, str] = {}
    copies = []
    for path in paths:
        try:
            mark = _mark(root / path)
        except OSError:
            continue
        if mark in first:
            copies.append((path, first[mark]))
        else:
            first[mark] = path
    return copies


def _mark(path: Path) -> bytes:
    with path.open("rb") as file:
        begin = file.read(SAMPLE)
        file.seek(max(0, path.stat().st_size - SAMPLE))
        return sha256(begin + file.read(SAMPLE)).digest()
