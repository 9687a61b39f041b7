"""The one exception that a person, not a programmer, can mend."""


class ToolkitError(Exception):
    """A mistake in a command, a configuration, a file or a plugin, told in one to three lines.

    The message says what is wrong, where, with which value, and what to do. The command line prints it without a
    traceback and exits with 2.
    """


def printable(text: str) -> str:
    """What may come from anybody's file, without what would move a terminal's cursor, or more."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


class NotFiniteError(ToolkitError):
    """Numbers that became NaN or infinite."""


class RemoteTraceback(Exception):
    """Another process's traceback as text: the cause of an error that came from there, which --debug shows."""


class RemoteError(Exception):
    """A failure in another process, blamed there: type, message and place in one line."""
