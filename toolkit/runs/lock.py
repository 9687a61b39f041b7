"""A lock on a run's folder: one training at a time writes into it. The system releases it when the training dies."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from shlex import quote
from stat import S_ISREG

from toolkit.errors import ToolkitError, printable

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # a system without it keeps no trainings apart
    flock = None  # type: ignore[assignment]

LOCK = ".lock"
PATIENCE = 2.0
"""Seconds to wait for a training that is just ending, such as a killed one whose loading processes are still there."""
UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}
"""Of file systems without locks, where trainings are not kept apart."""
LONGEST = 1000
"""Bytes of a lock's file that are read."""

_open: set[int] = set()
"""The files of this process's locks."""


@contextmanager
def training_lock(folder: Path) -> Iterator[None]:
    """Keeps every other training out of a run's folder while the block lasts.

    The folder is created where it is missing, and removed again where it is still empty at the end. ToolkitError where
    another training is in it, which is named, or where it cannot be written.
    """
    missing = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    file = _locked(folder)
    try:
        yield
    finally:
        _release(folder / LOCK, file)
        with suppress(OSError):
            for path in missing:
                path.rmdir()


def _locked(folder: Path) -> int:
    """The lock's file, open and locked."""
    deadline = time.monotonic() + PATIENCE
    while True:
        file = _opened(folder)
        try:
            locked = _try(file)
            if locked and _is_at(file, folder / LOCK):  # else another training has just ended and removed it
                _sign(file)
                _open.add(file)
                return file
            if not locked and time.monotonic() > deadline:
                raise ToolkitError(
                    f"{folder} is being trained by {_holder(file)}\n"
                    f"wait for it or stop it, then continue with toolkit train run={quote(str(folder))}; or train into"
                    " another folder"
                )
        except BaseException:
            os.close(file)
            raise
        os.close(file)
        time.sleep(0 if locked else 0.05)


def _opened(folder: Path) -> int:
    """The lock's file, a plain one that is nowhere else: what is signed must not be another file of anybody's."""
    path = folder / LOCK
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(path, flags, 0o666)
    except FileNotFoundError:  # another command has just removed the empty folder
        return _opened(folder)
    except OSError as e:
        raise ToolkitError(f"{path} cannot be opened, which a training needs: {e.strerror or e}") from e
    status = os.fstat(file)
    if not S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(file)
        raise ToolkitError(f"{path} is a link or no file: remove it")
    return file


def _try(file: int) -> bool:
    """Whether the file is locked now; where that cannot be asked for, it is taken to be."""
    if flock is None:
        return True
    try:
        flock(file, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as e:
        if e.errno not in UNSUPPORTED:
            raise ToolkitError(f"the run's folder cannot be locked: {e.strerror or e}") from e
    return True


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.lstat(path))
    except OSError:
        return False


def _sign(file: int) -> None:
    """Writes who holds the lock. A full disk leaves it unsigned."""
    text = json.dumps(
        {"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
    )
    with suppress(OSError):
        os.ftruncate(file, 0)
        os.pwrite(file, text.encode(), 0)


def _holder(file: int) -> str:
    try:
        signed = json.loads(os.pread(file, LONGEST, 0))
        pid, host, since = (printable(str(signed[key]))[:100] for key in ("pid", "host", "since"))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "another process"
    return f"process {pid} on {host} since {since}".replace("\n", " ")


def _release(path: Path, file: int) -> None:
    with suppress(OSError):
        if _is_at(file, path):
            path.unlink()
    _open.discard(file)
    os.close(file)


def _forget() -> None:
    """In a process that was forked from a training: its copy of the file would outlive the training."""
    while _open:
        with suppress(OSError):
            os.close(_open.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
