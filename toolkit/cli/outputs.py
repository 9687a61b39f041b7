"""Files that a command writes together: those of an earlier call are not left beside them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolkit.errors import ToolkitError


@contextmanager
def written_together(folder: Path, own: re.Pattern[str], whole: bool) -> Iterator[Path]:
    """Yields an empty folder, whose files appear in ``folder`` at the end; after an error, nothing has changed.

    ``whole``: the folder is replaced as one, whatever it held. Otherwise only files whose names match ``own``, those of
    an earlier call, make place for the new ones. OSError where that is impossible.
    """
    (folder.parent if whole else folder).mkdir(parents=True, exist_ok=True)
    staged = (folder.parent if whole else folder) / f".{folder.name}.{os.getpid()}"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    try:
        yield staged
        if whole:
            _swap(staged, folder)
        else:
            _move(staged, folder, own)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _swap(staged: Path, folder: Path) -> None:
    before = staged.with_name(f"{staged.name}.before")
    if folder.exists() or folder.is_symlink():
        folder.rename(before)
    staged.rename(folder)
    if before.is_dir() and not before.is_symlink():
        shutil.rmtree(before, ignore_errors=True)
    else:
        before.unlink(missing_ok=True)


def _move(staged: Path, folder: Path, own: re.Pattern[str]) -> None:
    """Removes what is there before anything is moved: of two calls' files never some of each are there."""
    for path in folder.iterdir():
        if own.fullmatch(path.name) and (path.is_file() or path.is_symlink()):
            path.unlink()
    for path in staged.iterdir():
        path.replace(folder / path.name)


def require_file(path: Path) -> None:
    """ToolkitError where a file cannot be written to a path: a folder, or a device or pipe, whose place it would take.

    A renamed file replaces what has its name; by root that may be ``/dev/null``.
    """
    if path.is_dir():
        raise ToolkitError(f"out={path}: this is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise ToolkitError(f"out={path}: this is a device or a pipe; name a file")


def require_folder(path: Path) -> None:
    """ToolkitError where no folder can be, as a file is in its place; asked before the work, not after it."""
    place = next(place for place in (path, *path.parents) if place.exists())
    if not place.is_dir():
        raise ToolkitError(f"out={path}: {place} is a file; name a folder")
