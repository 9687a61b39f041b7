"""Settings as a stranger wrote them: taken, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from toolkit.adopting.written import below, fraction, inner, number, numbers, one_of, only, truth
from toolkit.errors import ToolkitError

WRITTEN = {"n": 3, "list": [2, 1], "none": None, "yes": True, "half": 0.5, "word": "a", "deep": {"er": {"n": 1}}}


def test_what_is_there_is_taken_and_what_is_not_is_the_default() -> None:
    assert (number(WRITTEN, "n", 1), number(WRITTEN, "m", 1)) == (3, 1)
    assert (numbers(WRITTEN, "list"), numbers(WRITTEN, "l", (4,)), numbers({"l": []}, "l")) == ([2, 1], [4], [])
    assert numbers({"l": [0, 3]}, "l", most=3, least=0) == [0, 3]
    assert (truth(WRITTEN, "yes", False), truth(WRITTEN, "no", False)) == (True, False)
    assert (fraction(WRITTEN, "half", 0.0), fraction({"half": 1}, "half", 0.0)) == (0.5, 1.0)
    assert one_of(WRITTEN, "word", "b", ["a", "b"]) == "a"
    assert below(WRITTEN, "deep", "er") == inner(WRITTEN, "deep", "er", "est") == {"n": 1}
    only(WRITTEN, "so it is", n=3, half=0.5, none=None, absent="x")
    only({"dropout": 0}, "JSON writes it so", dropout=0.0)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: number(WRITTEN, "m"), "m=None: expected a whole number from 1"),
        (lambda: number(WRITTEN, "yes", 1), "yes=True: expected"),
        (lambda: number(WRITTEN, "n", 1, 2), "n=3: expected a whole number from 1 to 2"),
        (lambda: numbers(WRITTEN, "word"), "word=a: expected a list of 0 to 16"),
        (lambda: numbers({"l": []}, "l", shortest=1), r"l=\[\]: expected a list of 1 to 16"),
        (lambda: numbers({"l": [1] * 17}, "l"), r"l=\[1, 1.*: expected"),
        (lambda: numbers(WRITTEN, "list", most=1), r"list=\[2, 1\]: expected .* from 1 to 1"),
        (lambda: numbers({"l": [True]}, "l"), r"l=\[True\]: expected"),
        (lambda: fraction({"f": float("nan")}, "f", 0.0), "f=nan: expected a number from 0 to 1"),
        (lambda: truth({"t": 1}, "t", False), "t=1: expected true or false"),
        (lambda: one_of(WRITTEN, "list", "a", ["a", "b"]), r"list=\[2, 1\]: expected a or b"),
        (lambda: only(WRITTEN, "it must", yes=False), "yes=True: it must, so only yes=false is known"),
        (lambda: only({"one": True}, "it must", one=1), "one=True: it must, so only one=1 is known"),
        (lambda: below(WRITTEN, "deep", "n"), r"deep\.n=None: expected settings by name"),
        (lambda: inner({"deep": 2}, "deep"), "deep=2: expected settings by name"),
    ],
)
def test_what_it_cannot_be_is_refused_by_name(read: Callable[[], Any], message: str) -> None:
    with pytest.raises(ToolkitError, match=message):
        read()
