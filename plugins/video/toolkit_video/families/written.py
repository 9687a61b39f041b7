"""Settings as a stranger wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit import ToolkitError

LEVELS = 16
"""Most levels of a network."""


def number(written: Mapping[str, Any], key: str, most: int = 1 << 16) -> int:
    """A whole number from 1; ToolkitError, naming the setting, for anything else."""
    value = written[key]
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ToolkitError(f"{key}={str(value)[:40]}: expected a whole number from 1 to {most}")
    return value


def numbers(written: Mapping[str, Any], key: str, least: int = 1, most: int = 1 << 16) -> list[int]:
    """A list of whole numbers, as long as a network has levels at most; ToolkitError, naming the setting, for anything
    else."""
    values = written[key]
    fits = isinstance(values, list | tuple) and len(values) <= LEVELS
    if not fits or not all(type(value) is int and least <= value <= most for value in values):
        raise ToolkitError(
            f"{key}={str(values)[:40]}: expected a list of at most {LEVELS} whole numbers from {least} to {most}"
        )
    return list(values)


def below(written: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """The mapping at a path of keys; ToolkitError, naming it, where there is none."""
    for i, key in enumerate(keys):
        value = written.get(key)
        if not isinstance(value, Mapping):
            raise ToolkitError(f"{'.'.join(keys[: i + 1])}={str(value)[:40]}: expected settings by name")
        written = value
    return written
