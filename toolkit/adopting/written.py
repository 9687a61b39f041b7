"""Settings as a stranger wrote them: of any type, or not there.

Every function raises a ToolkitError that names the setting, its value, and what is expected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from toolkit.errors import ToolkitError

LONGEST = 16
"""Most numbers in a list: a network has no more levels or strides."""
SHOWN = 40
"""Characters of a value that a message shows."""


def number(written: Mapping[str, Any], key: str, default: int | None = None, most: int = 1 << 20) -> int:
    """A whole number from 1; without a default it must be there."""
    value = written.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ToolkitError(f"{key}={shown(value)}: expected a whole number from 1 to {most}")
    return value


def numbers(
    written: Mapping[str, Any],
    key: str,
    default: Sequence[int] | None = None,
    most: int = 1 << 16,
    *,
    least: int = 1,
    shortest: int = 0,
) -> list[int]:
    """A list of whole numbers, each from ``least`` to ``most``, and at least ``shortest`` of them."""
    values: Any = written.get(key, default)
    listed = isinstance(values, list | tuple) and shortest <= len(values) <= LONGEST
    if not listed or not all(type(value) is int and least <= value <= most for value in values):
        raise ToolkitError(
            f"{key}={shown(values)}: expected a list of {shortest} to {LONGEST} whole numbers from {least} to {most}"
        )
    return list(values)


def fraction(written: Mapping[str, Any], key: str, default: float) -> float:
    """A number from 0 to 1."""
    value = written.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or not 0 <= value <= 1:
        raise ToolkitError(f"{key}={shown(value)}: expected a number from 0 to 1")
    return float(value)


def truth(written: Mapping[str, Any], key: str, default: bool) -> bool:
    """True or false."""
    value = written.get(key, default)
    if not isinstance(value, bool):
        raise ToolkitError(f"{key}={shown(value)}: expected true or false")
    return value


def one_of(written: Mapping[str, Any], key: str, default: str, choices: Sequence[str]) -> str:
    """One of some words."""
    value = written.get(key, default)
    if not isinstance(value, str) or value not in choices:
        raise ToolkitError(f"{key}={shown(value)}: expected {' or '.join(choices)}")
    return value


def only(written: Mapping[str, Any], reason: str, **values: Any) -> None:
    """Refuses another value than the only one that parts of ours do. A setting that is not there has it."""
    for key, value in values.items():
        own = written.get(key, value)
        if own != value or isinstance(own, bool) != isinstance(value, bool):
            raise ToolkitError(f"{key}={shown(own)}: {reason}, so only {key}={_as_written(value)} is known")


def below(written: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """The settings at a path of keys, all of which must be there."""
    for i, key in enumerate(keys):
        value = written.get(key)
        if not isinstance(value, Mapping):
            raise ToolkitError(f"{'.'.join(keys[: i + 1])}={shown(value)}: expected settings by name")
        written = value
    return written


def inner(written: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """The settings below those of the keys that there are, such as ``params`` of ``model``."""
    for key in keys:
        if key in written:
            written = below(written, key)
    return written


def shown(value: Any) -> str:
    """A stranger's value in a message."""
    return str(value)[:SHOWN]


def _as_written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
