"""Signals that ask a training to stop: between two steps, so that what was done is saved.

The first one raises Interrupted; in a block that is ``deferred``, it is only noted, for the block to act upon. A second
one ends the process at once, as the system does, or raises KeyboardInterrupt where Python code is being interrupted.
"""

from __future__ import annotations

import os
import signal
import threading
from _thread import interrupt_main
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from toolkit.errors import Interrupted

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""From a terminal, from the system or a scheduler, and from a scheduler that was asked to give notice."""
SHOW_CURSOR = b"\x1b[?25h"

_asked = 0
_deferred = False
_notify: Callable[[int], None] | None = None
_after: signal.Handlers | Callable[[int, FrameType | None], object] = signal.SIG_DFL


def asked() -> int:
    """The number of the signal that has come, 0 for none."""
    return _asked


@contextmanager
def handled(notify: Callable[[int], None] | None = None, *, passed_on: bool = False) -> Iterator[None]:
    """In the block ``STOPPING`` stop what it does, except those that are ignored, as in a script's background job.

    ``notify`` is called with the first one's number. ``passed_on``: who started this process hands it every signal that
    comes to both, so that the second is the first one again, and the third ends the process. Only the main thread
    handles signals: in others, and in a block that is handled already, this does nothing.
    """
    with _handling(STOPPING, _ignore_once if passed_on else signal.SIG_DFL, notify):
        yield


@contextmanager
def keyboard() -> Iterator[None]:
    """The same for Ctrl-C alone, in a program of another's that has not taken it for itself."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with _handling((signal.SIGINT,) if ours else (), signal.default_int_handler, None):
        yield


@contextmanager
def _handling(
    numbers: tuple[int, ...],
    after: signal.Handlers | Callable[[int, FrameType | None], object],
    notify: Callable[[int], None] | None,
) -> Iterator[None]:
    global _asked, _notify, _after
    before = {number: signal.getsignal(number) for number in numbers}
    if not before or _handle in before.values() or threading.current_thread() is not threading.main_thread():
        yield
        return
    _asked, _notify, _after = 0, notify, after
    try:
        install(*numbers)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _asked, _notify = 0, None


def install(*numbers: int) -> None:
    """Handles these signals from now on, unless they are ignored; by default all of ``STOPPING``."""
    for number in numbers or STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _handle)


def ignore_once() -> None:
    """In a process that works for another one: a signal that goes to both stops this one with the other."""
    for number in STOPPING:
        signal.signal(number, _ignore_once)


def _ignore_once(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)


def ask(number: int) -> None:
    """Acts as if a signal had come, unless one has. For another thread than the main one."""
    if not _asked:
        interrupt_main(signal.Signals(number))


@contextmanager
def deferred() -> Iterator[None]:
    """In the block a signal is only noted; see ``asked``."""
    global _deferred
    before, _deferred = _deferred, True
    try:
        yield
    finally:
        _deferred = before


@contextmanager
def allowed() -> Iterator[None]:
    """In the block, which may be within a deferred one, a signal raises Interrupted, also one that has come already."""
    global _deferred
    before, _deferred = _deferred, False
    try:
        if _asked:
            raise Interrupted(_asked)
        yield
    finally:
        _deferred = before


def _handle(number: int, frame: FrameType | None) -> None:
    global _asked
    _asked = number
    for other in STOPPING:
        if signal.getsignal(other) is _handle:
            signal.signal(other, _after)
    with suppress(OSError):  # a progress bar has hidden it, and a second signal would leave it so
        if os.isatty(1):
            os.write(1, SHOW_CURSOR)
    if _notify is not None:
        _notify(number)
    if not _deferred:
        raise Interrupted(number)
