"""Jobs in processes of a launcher, such as joblib's: they end with the command, and save before that.

The command tells them of a signal through a folder. A job that has stopped says so there, and waits: were its process
to end first, the launcher would kill the other jobs' while they save.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import parent_process
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from toolkit import interrupts
from toolkit.errors import Interrupted

SWEEP = "TOOLKIT_SWEEP"
"""The variable that tells a job's process of the command: its number and the folder."""
STOP = "stop"
GRACE = 30.0
"""Seconds that jobs have to stop and save."""
POLL = 0.1
"""Seconds between two looks at the folder."""


@contextmanager
def told_of_signals() -> Iterator[None]:
    """In the command: the first signal of ``interrupts.STOPPING`` stops the jobs, which save, and raises Interrupted.

    A second one ends the command at once. Signals that are ignored stay so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in interrupts.STOPPING}
    before = {number: handler for number, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}
    with TemporaryDirectory(prefix="toolkit-") as name:

        def stop(number: int, frame: FrameType | None) -> None:
            for other in before:
                signal.signal(other, signal.SIG_DFL)
            _stop_jobs(Path(name), number)
            raise Interrupted(number)

        os.environ[SWEEP] = f"{os.getpid()}:{name}"
        try:
            for number in before:
                signal.signal(number, stop)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            del os.environ[SWEEP]


@contextmanager
def ending_with_command() -> Iterator[None]:
    """In a job: it stops as the command says, or when that is gone. Without a launcher's process this does nothing."""
    parent = parent_process()
    command, _, name = os.environ.get(SWEEP, "").partition(":")
    if parent is None or str(parent.pid) != command:
        yield
        return
    mark = Path(name) / f"job-{os.getpid()}"
    with suppress(OSError):  # the command may be gone already
        mark.touch()
    before = {number: signal.getsignal(number) for number in interrupts.STOPPING}
    for number, handler in before.items():  # before and after the training, which handles them itself
        if handler != signal.SIG_IGN:
            signal.signal(number, lambda *_: _rest(mark))
    _follow_command(int(command), mark)
    try:
        yield
    except KeyboardInterrupt:
        _rest(mark)
    finally:
        mark.unlink(missing_ok=True)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _stop_jobs(folder: Path, number: int) -> None:
    """Tells the jobs of a signal, and waits until all have stopped."""
    partial = folder / f".{STOP}"
    partial.write_text(str(number))
    partial.rename(folder / STOP)
    deadline = time.monotonic() + GRACE
    while any(folder.glob("job-*")) and time.monotonic() < deadline:
        time.sleep(POLL)


def _rest(mark: Path) -> None:
    """Says that the job has stopped, and waits for its process to be ended."""
    mark.unlink(missing_ok=True)
    while True:
        time.sleep(1)


_following: set[int] = set()
"""The process, once it follows the command."""


def _follow_command(command: int, mark: Path) -> None:
    """From now on this process does what the command's signals say, and ends with it, also between two jobs."""
    if os.getpid() not in _following:
        _following.add(os.getpid())
        threading.Thread(target=_follow, args=(command, mark), daemon=True).start()


def _follow(command: int, mark: Path) -> None:
    """Passes on what stops the command, and ends this process when that is gone: it may have been killed."""
    since: float | None = None
    while True:
        time.sleep(POLL)
        works, gone = mark.exists(), os.getppid() != command
        number = int(signal.SIGTERM) if gone else _told(mark.parent / STOP)
        if not works:
            since = None
        elif number and since is None:
            since = time.monotonic()
            interrupts.ask(number)
        if gone and (since is None or time.monotonic() - since > GRACE):
            shutil.rmtree(mark.parent, ignore_errors=True)
            os._exit(128 + signal.SIGTERM)


def _told(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
