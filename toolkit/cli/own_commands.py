"""Commands that plugins bring: entry points of the group ``toolkit.command``, ``NAME = "module:function"``.

The function takes the words after the name, and returns the exit status, or None for 0. A mistake of the user is a
``ToolkitError``. Listing them imports nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from contextlib import suppress

from toolkit import registry
from toolkit.cli.commands import COMMANDS
from toolkit.errors import ToolkitError
from toolkit.modules import locate
from toolkit.registry import COMMAND, Registration, did_you_mean


def command_of(name: str) -> Callable[[list[str]], int]:
    """A plugin's command by name; ToolkitError where there is none, or it cannot be used."""
    own = registry.names(COMMAND)
    if name not in own:
        known = [*COMMANDS, *own]
        raise ToolkitError(f"no such command{did_you_mean(name, known)}; commands: {', '.join(known)}")
    command = registry.load_command(name)

    def run(words: list[str]) -> int:
        status = command(words)
        if status is None:
            return 0
        if isinstance(status, int) and 0 <= status < 256:
            return status
        raise ToolkitError(f"{registry.find(COMMAND, name)} returns {status!r}: a command returns its exit status")

    return run


def summaries() -> dict[str, str]:
    """The commands of plugins that can be reached, with what they do."""
    own = {one.name: one for one in registry.registrations(COMMAND) if one.name not in COMMANDS}
    return {name: f"{_summary(one)} ({one.distribution})".lstrip() for name, one in own.items()}


def problems() -> list[str]:
    """What is wrong with plugins' commands, a sentence each: names that are the core's, or several plugins'."""
    return [text for one in registry.registrations(COMMAND) if (text := _problem(one))]


def _problem(registration: Registration) -> str:
    if registration.name in COMMANDS:
        return f"{registration} is not used: toolkit {registration.name} is the core's: rename yours"
    try:
        registry.find(COMMAND, registration.name)
    except ToolkitError as error:
        return str(error)
    return ""


def _summary(registration: Registration) -> str:
    """The first line of the function's docstring, read from its source."""
    module, _, name = registration.target.partition(":")
    with suppress(OSError, ValueError, SyntaxError, ToolkitError):
        file = locate(module, registration.folder)
        statements = ast.parse(file.read_text(encoding="utf-8")).body if file else []
        for statement in statements:
            if isinstance(statement, ast.FunctionDef) and statement.name == name:
                return (ast.get_docstring(statement) or "").partition("\n")[0].rstrip(".")
    return ""
