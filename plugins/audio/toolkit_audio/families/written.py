"""Settings as a stranger wrote them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from toolkit import ToolkitError

STRIDES = 16
"""Most strides of a network, and most numbers in any other list."""


def number(written: Mapping[str, Any], key: str, default: int, most: int = 1 << 20) -> int:
    """A whole number from 1; ToolkitError, naming the setting, for anything else."""
    value = written.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ToolkitError(f"{key}={_shown(value)}: expected a whole number from 1 to {most}")
    return value


def numbers(written: Mapping[str, Any], key: str, default: Sequence[int], most: int = 1 << 10) -> list[int]:
    """A list of such numbers, of which there is at least one."""
    values = written.get(key, default)
    if not isinstance(values, Sequence) or isinstance(values, str) or not 1 <= len(values) <= STRIDES:
        raise ToolkitError(f"{key}={_shown(values)}: expected a list of 1 to {STRIDES} whole numbers")
    return [number({key: value}, key, 1, most) for value in values]


def fraction(written: Mapping[str, Any], key: str, default: float) -> float:
    """A number from 0 to 1; ToolkitError, naming the setting, for anything else."""
    value = written.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or not 0 <= value <= 1:
        raise ToolkitError(f"{key}={_shown(value)}: expected a number from 0 to 1")
    return float(value)


def truth(written: Mapping[str, Any], key: str, default: bool) -> bool:
    """True or false; ToolkitError, naming the setting, for anything else."""
    value = written.get(key, default)
    if not isinstance(value, bool):
        raise ToolkitError(f"{key}={_shown(value)}: expected true or false")
    return value


def one_of(written: Mapping[str, Any], key: str, default: str, choices: Sequence[str]) -> str:
    """One of some words; ToolkitError, naming the setting, for anything else."""
    value = written.get(key, default)
    if not isinstance(value, str) or value not in choices:
        raise ToolkitError(f"{key}={_shown(value)}: expected {' or '.join(choices)}")
    return value


def only(written: Mapping[str, Any], reason: str, **values: Any) -> None:
    """ToolkitError, naming the setting, where one has another value than the only one that parts of ours do."""
    for key, value in values.items():
        own = written.get(key, value)
        if type(own) is not type(value) or own != value:
            raise ToolkitError(f"{key}={_shown(own)}: {reason}")


def _shown(value: Any) -> str:
    return str(value)[:40]
