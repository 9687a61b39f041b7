"""What an MP4 or QuickTime file states of its own size, read before FFmpeg believes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

FIRST = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"styp", b"pnot", b"moof")
"""Boxes that such a file begins with."""
HOLDERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf")
"""Boxes of boxes."""
COUNTS = {b"stsz": 8, b"stz2": 8, b"trun": 4}
"""Tables of samples, and where in one the number of its rows is."""
MOST = 1_000_000
"""Boxes that a file may have."""


class Box(NamedTuple):
    """A box of an MP4 file, which may contain others."""

    kind: bytes
    body: int
    """Where its contents begin."""
    stop: int
    """Where it ends, by its own header."""


def claimed_samples(path: Path) -> int:
    """The most samples that a table in the file claims to have; 0 if it is no MP4 file.

    FFmpeg makes room for each, and a table takes no more than 20 bytes where all samples are of one size.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        top = next(_boxes(file, 0, size), None)
        if top is None or top.kind not in FIRST:
            return 0
        most = 0
        for number, box in enumerate(_all(file, 0, size)):
            if number >= MOST:
                raise ValueError(f"it has more than {MOST} boxes")
            if box.kind in COUNTS:
                file.seek(box.body + COUNTS[box.kind])
                most = max(most, int.from_bytes(file.read(4)))
        return most


def is_torn(path: Path) -> bool:
    """Whether an MP4 file ends before its data does."""
    size = path.stat().st_size
    with path.open("rb") as file:
        return any(box.kind == b"mdat" and box.stop > size for box in _boxes(file, 0, size))


def _all(file: BinaryIO, start: int, stop: int, depth: int = 0) -> Iterator[Box]:
    for box in _boxes(file, start, stop):
        yield box
        if box.kind in HOLDERS and depth < len(HOLDERS):
            yield from _all(file, box.body, min(box.stop, stop), depth + 1)


def _boxes(file: BinaryIO, start: int, stop: int) -> Iterator[Box]:
    while start + 8 <= stop:
        file.seek(start)
        head = file.read(16)
        size, kind, body = int.from_bytes(head[:4]), head[4:8], start + 8
        if size == 1:
            size, body = int.from_bytes(head[8:]), start + 16
        end = start + size if size else stop
        if end < body:
            return
        yield Box(kind, body, end)
        start = end
