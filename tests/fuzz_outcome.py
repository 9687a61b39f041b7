"""What may come of a command that is called with anything, on any files.

It is done, or refused in words with exit 2; soon, in bounded memory, without a traceback, with output that a terminal
may show, and without leaving half of anything behind. Nothing outside the folder is written meanwhile.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from toolkit import __main__ as command

BUSY, WAITING = 10, 40
"""Seconds of computation, and of anything, after which a command hangs."""
MEMORY = 3 << 30
"""Bytes of memory that a command may take."""


class Stopped(BaseException):
    """Raised in a command that hangs, or writes elsewhere; no handler of errors catches it."""


class Outcome(NamedTuple):
    """What came of a command."""

    status: int
    said: str
    seconds: float
    faults: tuple[str, ...]
    """What may not come of any."""


class _Writes:
    """Stops whatever writes outside the folder for temporary files; an audit hook cannot be taken off."""

    EVENTS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate", "shutil.rmtree")
    watching = False

    def __init__(self) -> None:
        self.free = tuple(os.path.realpath(folder) for folder in (tempfile.gettempdir(), "/dev/null", "/dev/shm"))

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.watching:
            return
        if event == "open":
            path, _, flags = args
            writes = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            self._check(path if writes else None)
        elif event in self.EVENTS:
            for path in args[:2]:
                self._check(path)

    def _check(self, path: Any) -> None:
        if not isinstance(path, str | bytes | os.PathLike) or "__pycache__" in os.fsdecode(path):
            return
        place = os.path.abspath(os.fsdecode(path))
        if not place.startswith((*self.free, "/proc/self")):
            self.watching = False
            raise Stopped(f"writes to {place}")


WRITES = _Writes()
sys.addaudithook(WRITES)


@contextmanager
def bounded() -> Iterator[None]:
    """Stops what hangs or writes elsewhere, and bounds the memory."""

    def late(number: int, _: object) -> None:
        raise Stopped("it hangs" if number == signal.SIGPROF else "it waits for ever")

    handlers = {number: signal.signal(number, late) for number in (signal.SIGPROF, signal.SIGALRM)}
    limits = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    here = Path.cwd()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, limits[1]))
    signal.setitimer(signal.ITIMER_PROF, BUSY)
    signal.setitimer(signal.ITIMER_REAL, WAITING)
    WRITES.watching = True
    try:
        yield
    finally:
        WRITES.watching = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.chdir(here)


def outcome(words: Sequence[str], home: Path, capsys: pytest.CaptureFixture[str]) -> Outcome:
    """Calls a command in the current folder; ``home`` has all that it may change."""
    before, begun = _names(home), time.monotonic()
    capsys.readouterr()
    status, faults = -1, list[str]()
    try:
        with bounded():
            status = command.run(words)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except Stopped as stop:
        faults.append(str(stop))
    except BaseException as error:  # an error that the command lets through is what is looked for
        faults.append(f"raises {type(error).__name__}: {error}")
    seconds = time.monotonic() - begun
    out, err = capsys.readouterr()
    if not faults:
        faults += _faults(status, out, err)
    if status == 2 and (left := _left(home, _names(home) - before)):
        faults.append(f"leaves {left[:4]}")
    return Outcome(status, out + err, seconds, tuple(faults))


def _faults(status: int, out: str, err: str) -> Iterator[str]:
    if status not in (0, 2):
        yield f"status {status}"
    if "Traceback" in out + err:
        yield "a traceback"
    if status == 2 and not (out + err).strip():
        yield "refused without a word"
    control = sorted({c for c in out + err if not c.isprintable() and c != "\n"})
    if control:
        yield f"prints {control}"


def _names(home: Path) -> set[Path]:
    return {Path(folder, name) for folder, folders, files in os.walk(home) for name in (*folders, *files)}


def _left(home: Path, new: set[Path]) -> list[str]:
    """What a refused command has left behind, other than a run that began and what was written into one before."""
    began = {path.parent for path in new if path.name == "config.yaml"}
    runs = {*began, *(run for path in began for run in path.parents if run != home)}
    return sorted(str(path.relative_to(home)) for path in new if not runs & {path, *path.parents})
