"""Numbers out of range are refused by their option's type, whoever gives them."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from toolkit.errors import ToolkitError
from toolkit.options import AutoencoderTrainerOptions, RunOptions
from toolkit.ranges import PositiveInt, Range, range_of, refusal
from toolkit.schema import Option, signature


@pytest.mark.parametrize(
    ("part", "name", "value", "reason"),
    [
        ("ema", "decay", nan, "must be a finite number"),
        ("ema", "decay", 1.0, "must be below 1"),
        ("ema", "commitment", nan, "must be a finite number"),
        ("ema", "dead_code_threshold", -1.0, "must be at least 0"),
        ("vq", "entropy_temperature", inf, "must be a finite number"),
        ("vq", "entropy_temperature", 0.0, "must be above 0"),
        ("vq", "codebook_size", 1 << 62, "must be at most 2147483647"),
        ("fsq", "levels", [8, -1], "must be at least 1"),
        ("bsq", "diversity", nan, "must be a finite number"),
        ("residual", "dropout", 1.5, "must be at most 1"),
    ],
)
def test_a_parts_number_out_of_range_is_refused(part: str, name: str, value: Any, reason: str) -> None:
    option = signature("quantizer", part).option(name)
    assert option is not None
    with pytest.raises(ToolkitError) as caught:
        option.convert(value, f"quantizer.{name}")
    assert str(caught.value) == f"quantizer.{name}={value}: {reason}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", inf),
        ("clip", nan),
        ("weight_decay", nan),
        ("betas", (0.9, nan)),
        ("critic_clip", inf),
        ("critic_learning_rate", nan),
        ("timeout", nan),
        ("floor", nan),
        ("steps", 1 << 62),
        ("learning_rate_factors", {"encoder": inf}),
    ],
)
def test_a_trainers_number_out_of_range_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ToolkitError, match=rf"^{name}=.*: must be "):
        AutoencoderTrainerOptions(**{name: value})


@pytest.mark.parametrize(("name", "value"), [("seed", 10**20), ("seed", -1), ("dim", 0), ("dim", 1 << 62)])
def test_a_runs_number_out_of_range_is_refused(name: str, value: int) -> None:
    with pytest.raises(ToolkitError, match=f"^{name}={value}: must be (at |a number of 64 bits)"):
        RunOptions(**{name: value})  # type: ignore[arg-type]


def test_ranges_are_spelled_and_found() -> None:
    option = signature("quantizer", "ema").option("decay")
    assert option is not None
    assert option.wanted == "float, at least 0 and below 1"
    assert range_of(tuple[PositiveInt, ...] | None) == Range(1, 2147483647)
    assert str(Range(1, 2147483647)) == "at least 1"
    assert refusal({"a": [1, (2, -1)]}, Range(0)) == "must be at least 0"
    assert not refusal([True, "x", None, 3], Range(2))


@pytest.mark.parametrize(("kind", "number"), [(int, 10**400), (int, -(1 << 63)), (float, 10**400)])
def test_a_number_that_no_float_can_hold_is_refused(kind: type, number: int) -> None:
    with pytest.raises(ToolkitError, match=r"^x[:=]"):
        Option("x", kind, 1).convert(number, "x")
