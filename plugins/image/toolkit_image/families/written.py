"""Settings as a stranger wrote them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toolkit import ToolkitError

LEVELS = 16
"""Most levels, and most resolutions that attend."""


def number(written: Mapping[str, Any], key: str, default: int, most: int = 1 << 20) -> int:
    """A whole number from 1; ToolkitError, naming the setting, for anything else."""
    value = written.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ToolkitError(f"{key}={str(value)[:40]}: expected a whole number from 1 to {most}")
    return value


def numbers(written: Mapping[str, Any], key: str, default: Sequence[int], most: int = 1 << 16) -> list[int]:
    """A list of such numbers, which may be empty."""
    values = written.get(key, default)
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) > LEVELS:
        raise ToolkitError(f"{key}={str(values)[:40]}: expected a list of at most {LEVELS} whole numbers")
    return [number({key: value}, key, 1, most) for value in values]


def truth(written: Mapping[str, Any], key: str, default: bool) -> bool:
    """True or false; ToolkitError, naming the setting, for anything else."""
    value = written.get(key, default)
    if not isinstance(value, bool):
        raise ToolkitError(f"{key}={str(value)[:40]}: expected true or false")
    return value


def inner(written: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """The mapping below those of the keys that there are, such as ``params`` of ``model``; ToolkitError, naming the
    setting, for one that is no mapping."""
    for key in keys:
        below = written.get(key, written)
        if not isinstance(below, Mapping):
            raise ToolkitError(f"{key}={str(below)[:40]}: expected settings by name")
        written = below
    return written


def only(written: Mapping[str, Any], reason: str, **values: Any) -> None:
    """ToolkitError, naming the setting, where one has another value than the only one that parts of ours do."""
    for key, value in values.items():
        if key in written and written[key] != value:
            raise ToolkitError(f"{key}={str(written[key])[:40]}: {reason}, so only {key}={str(value).lower()} is known")
