"""Windows over files that are longer than an example."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

import numpy as np


def windows(lengths: Iterable[int], length: int) -> np.ndarray:
    """File and first position ``(n, 2)``, int64, of evenly spaced windows that cover every file.

    A file shorter than a window has one, from its start; an empty one has none.
    """
    whole = np.fromiter(lengths, np.int64)
    counts = -(-whole // length)
    files = np.repeat(np.arange(len(whole)), counts)
    numbers = np.arange(len(files)) - np.repeat(counts.cumsum() - counts, counts)
    starts = numbers * (whole - length)[files] // np.maximum(1, counts - 1)[files]
    return np.stack([files, starts], 1)


def part_name(path: str, start: int) -> str:
    """A window's name: its file's, with the first position after the stem unless that is 0: ``a/b@16000.wav``."""
    parts = PurePosixPath(path)
    return parts.with_name(f"{parts.stem}@{start}{parts.suffix}").as_posix() if start else path
