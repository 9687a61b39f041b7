"""The one exception that a person, not a programmer, can mend."""


class ToolkitError(Exception):
    """A mistake in a command, a configuration, a file or a plugin, told in one to three lines.

    The message says what is wrong, where, with which value, and what to do. The command line prints it without a
    traceback and exits with 2.
    """


class NotFinite(ToolkitError):
    """Numbers that became NaN or infinite."""


class Elsewhere(Exception):
    """A failure in another process, blamed there: type, message and place in one line."""
