"""Which numbers an option may have, as a part of its type: ``decay: Annotated[float, Range(least=0, below=1)]``.

A range is read with the type, from source, and refused before anything is built. It holds for every number in the
option, those in a tuple or dict included. No option's number is NaN or infinite, whether it has a range or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Any, get_args

LARGEST = 2147483647
"""The most that is counted: 2**31 - 1."""
BITS_64 = 1 << 63
"""What the size of a whole number is below."""


@dataclass(frozen=True)
class Range:
    """Numbers from ``least`` to ``most``, or ``above`` and ``below`` which they are. Each bound is a literal, or a
    module's constant."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def refusal(self, number: float) -> str:
        """What is wrong with a number, such as "must be at least 1"; empty where it is in the range."""
        fits = {
            f"at least {self.least}": self.least is None or number >= self.least,
            f"above {self.above}": self.above is None or number > self.above,
            f"at most {self.most}": self.most is None or number <= self.most,
            f"below {self.below}": self.below is None or number < self.below,
        }
        return "" if all(fits.values()) else f"must be {next(bound for bound, fit in fits.items() if not fit)}"

    def __str__(self) -> str:
        """As help has it: "at least 0 and below 1"."""
        most = None if self.most == LARGEST else self.most
        bounds = (("at least", self.least), ("above", self.above), ("at most", most), ("below", self.below))
        return " and ".join(f"{word} {bound}" for word, bound in bounds if bound is not None)


PositiveInt = Annotated[int, Range(least=1, most=LARGEST)]
NonNegativeInt = Annotated[int, Range(least=0, most=LARGEST)]
Positive = Annotated[float, Range(above=0)]
NonNegative = Annotated[float, Range(least=0)]
Fraction = Annotated[float, Range(least=0, most=1)]
Decay = Annotated[float, Range(least=0, below=1)]


def range_of(wanted: Any) -> Range | None:
    """The range somewhere in a type."""
    for note in getattr(wanted, "__metadata__", ()):
        if isinstance(note, Range):
            return note
    return next((found for part in get_args(wanted) if (found := range_of(part))), None)


def refusal(value: Any, allowed: Range | None) -> str:
    """What is wrong with the first wrong number of an option's value; empty where none is."""
    for number in _numbers(value):
        if isinstance(number, int) and abs(number) >= BITS_64:  # which may be too large to be a float at all
            return "must be a number of 64 bits"
        if not isfinite(number):
            return "must be a finite number"
        if allowed and (reason := allowed.refusal(number)):
            return reason
    return ""


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value
