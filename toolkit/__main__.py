"""The command ``toolkit``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from toolkit.cli.commands import COMMANDS
from toolkit.cli.safe_path import safe_path
from toolkit.errors import Interrupted, ToolkitError, printable


def main() -> int:
    """Runs the process's arguments; returns the exit status."""
    return run(sys.argv[1:])


def run(args: Sequence[str]) -> int:
    """Runs one command: 0, 2 for a mistake of the user, 1 for a failure, 128 + N where signal N stopped it."""
    words, debug = list(args), "--debug" in args
    title = "toolkit"
    try:
        words = _globals(words)
        if not words or words[0].startswith("-"):
            return _without_command(words)
        title = f"toolkit {words[0]}"
        with safe_path():
            return _command(words[0])(words[1:])
    except Interrupted as error:
        return _report(f"{title}: {error}", 128 + error.number)
    except KeyboardInterrupt:
        return _report(f"{title}: interrupted", 130)
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ToolkitError as error:
        if debug:
            raise
        return _report(f"{title}: {error}", 2)
    except Exception as error:
        if debug:
            raise
        from toolkit.blame import blame
        from toolkit.failures import explain

        if text := explain(error):
            return _report(f"{title}: {text}", 2)
        return _report(f"{title}: {blame(error)}\nrun with --debug for the traceback", 1)


def _report(text: str, status: int) -> int:
    print(printable(text), file=sys.stderr)
    return status


def _globals(words: list[str]) -> list[str]:
    """The words without the global flags, which are applied here."""
    others: list[str] = []
    words = [word for word in words if word != "--debug"]
    while words:
        word = words.pop(0)
        flag, separator, folder = word.partition("=")
        if flag != "--plugin":
            others.append(word)
            continue
        if not separator:
            folder = words.pop(0) if words else ""
        _add_plugin(folder)
    return others


def _add_plugin(folder: str) -> None:
    from toolkit.registry import PLUGIN_PATH

    if not folder or not Path(folder).is_dir():
        raise ToolkitError(f"--plugin {folder}: give a plugin's folder, with a pyproject.toml in it")
    before = os.environ.get(PLUGIN_PATH)
    os.environ[PLUGIN_PATH] = os.pathsep.join(filter(None, [before, str(Path(folder).resolve())]))


def _without_command(words: Sequence[str]) -> int:
    if words and words[0] == "--version":
        from importlib.metadata import version

        print(f"discrete-toolkit {version('discrete-toolkit')}")
        return 0
    if words and words[0] not in ("-h", "--help"):
        raise ToolkitError(f"{words[0]}: no such flag; toolkit --help lists the commands")
    print(printable(_help()))
    return 0 if words else 2


def _help() -> str:
    from toolkit.cli.own_commands import summaries

    own = summaries()
    width = max(map(len, (*COMMANDS, *own)))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    lines += ["", *(f"  {name:<{width}}  {summary}" for name, summary in own.items())] if own else []
    flags = [
        "--plugin FOLDER  use a plugin that is not installed",
        "--debug          show the traceback of an error",
    ]
    flags += ["--version        print the version"]
    return "\n".join(["toolkit COMMAND [KEY=VALUE …]", "", *lines, "", *(f"  {flag}" for flag in flags)])


def _command(name: str) -> Callable[[list[str]], int]:
    if name not in COMMANDS:
        from toolkit.cli.own_commands import command_of

        return command_of(name)
    module, _, function = COMMANDS[name][0].partition(":")
    command: Callable[[list[str]], int] = getattr(import_module(module), function)
    return command


if __name__ == "__main__":
    sys.exit(main())
