"""The flags of ``toolkit train`` and ``toolkit check``: those of Hydra's that make sense here."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.errors import ToolkitError
from toolkit.registry import did_you_mean

_SHORT = {"-h": "--help", "-c": "--cfg", "-p": "--package", "-m": "--multirun", "-i": "--info", "-cd": "--config-dir"}
_FLAGS: dict[str, tuple[str, ...] | None] = {
    "--help": None,
    "--hydra-help": None,
    "--multirun": None,
    "--resolve": None,
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    "--package": (),
    "--config-dir": (),
}
"""Hydra's flags that make sense here, with the values that they take: () for any, None for a flag without one."""
_WITH = {"--package": ("--cfg",), "--resolve": ("--cfg", "--help")}
"""Flags that mean something only with another."""


def split(args: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Flags by their long names, with their values, and words; Hydra wants the flags first."""
    flags: dict[str, str] = {}
    words: list[str] = []
    remaining = list(args)
    while remaining:
        arg = remaining.pop(0)
        if not arg.startswith("-"):
            words.append(arg)
            continue
        flag, separator, value = arg.partition("=")
        flag = _SHORT.get(flag, flag)
        if flag not in _FLAGS:
            raise ToolkitError(f"{flag}: no such flag{did_you_mean(flag, _FLAGS)}; see toolkit train --help")
        flags[flag] = value if separator else _value(flag, remaining)
    for flag, others in _WITH.items():
        if flag in flags and not any(other in flags for other in others):
            raise ToolkitError(f"{flag}: it goes with {' or '.join(others)}")
    return flags, words


def _value(flag: str, remaining: list[str]) -> str:
    """Takes a flag's value off the remaining arguments."""
    choices = _FLAGS[flag]
    if choices is None:
        return ""
    if remaining and (not choices or remaining[0] in choices):
        return remaining.pop(0)
    if flag == "--info":
        return "all"
    raise ToolkitError(f"{flag}: give a value{', one of ' + ', '.join(choices) if choices else ''}")
