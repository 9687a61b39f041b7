"""How files of a run are written: aside and then renamed, so that nothing is ever written through a link.

A run may be a stranger's: ``samples/sample-0000.png`` may be a link to its configuration, or another name of a file of
yours. Renaming replaces the name; opening it would change the other file.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new name beside ``path``, with the same suffix, to write a file to: it takes the path's place afterwards.

    Where the block fails, what was at the path stays.
    """
    partial = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException as e:
        with suppress(OSError):
            partial.unlink()
        if isinstance(e, OSError) and e.filename and os.fspath(e.filename) == str(partial):
            e.filename, e.filename2 = str(path), None  # which says more than a name that is gone
        raise


def write_text(path: Path, text: str) -> None:
    """A text file, flushed to the disk."""
    with replacing(path) as partial, partial.open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def append_text(path: Path, text: str) -> None:
    """Adds to a text file; a link is replaced by a copy of what it leads to."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    for again in (True, False):
        try:
            handle = os.open(path, flags, 0o666)
        except OSError as e:
            if e.errno not in (errno.ELOOP, errno.EMLINK) or not again:
                raise
            _own(path)
            continue
        with os.fdopen(handle, "a", encoding="utf-8") as file:
            status = os.fstat(handle)
            if S_ISREG(status.st_mode) and (status.st_nlink == 1 or not again):
                file.write(text)
                return
        _own(path)


def write_into(folder: Path, write: Callable[[Path], list[Path]]) -> list[Path]:
    """The files that ``write`` writes into the folder it is called with, moved to this one; returns where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{secrets.token_hex(8)}"
    partial.mkdir()
    try:
        paths = []
        for path in write(partial):
            to = folder / path.relative_to(partial)
            to.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, to)
            paths.append(to)
        return paths
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _own(path: Path) -> None:
    """Replaces a link, or one of a file's several names, by a file of its own with the same content."""
    with replacing(path) as partial:
        if path.is_file():
            shutil.copyfile(path, partial)
        else:
            partial.touch()
