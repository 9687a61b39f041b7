"""The exceptions of the toolkit; ToolkitError is the one that the user can fix."""

from __future__ import annotations

import signal


class ToolkitError(Exception):
    """A mistake in a command, a configuration, a file or a plugin, described in one to three lines.

    The message says what is wrong, where, with which value, and what to do. The command line prints it without a
    traceback and exits with 2.
    """


def printable(text: str) -> str:
    """Untrusted text without the characters that would control a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


class NotFiniteError(ToolkitError):
    """Numbers that became NaN or infinite."""


class RemoteTraceback(Exception):
    """Another process's traceback as text: the cause of an error from there, shown by --debug."""


class RemoteError(Exception):
    """A failure in another process: its type, message and place in one line."""


class Interrupted(KeyboardInterrupt):
    """What a signal has stopped; what could be saved is saved. ``number`` is the signal's."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = int(number)

    def __str__(self) -> str:
        return "interrupted" if self.number == signal.SIGINT else f"stopped by {signal.Signals(self.number).name}"
