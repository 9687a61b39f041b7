"""What a comparison of runs takes to be equal, and notes of where it is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from toolkit.cli.differences import differences, text
from toolkit.config import RunConfig

MOST = 4
"""Datasets that a note names."""


class Row(NamedTuple):
    """One run in the comparison, with one of its priors."""

    run: Path
    config: RunConfig
    metrics: Mapping[str, Any]
    label: str


def unequal_data(rows: Sequence[Row]) -> list[str]:
    """A note where the runs were not trained on one dataset, read in one way."""
    options = differences([{"dataset": row.config.dataset.values()} for row in rows])
    names = sorted({" ".join(f"{key}={text(value)}" for key, value in own.items()) for own in options})
    if len(names) < 2:
        return []
    shown = "; ".join(name or "its own" for name in names[:MOST]) + ("; …" if len(names) > MOST else "")
    return [f"the runs are not of one dataset ({shown}): their numbers do not compare"]


def unequal_rates(rows: Sequence[Row]) -> list[str]:
    """A note where the runs' codes have different rates."""
    rates = sorted({round(rate, 3) for row in rows if isinstance(rate := row.metrics.get("rate"), int | float)})
    if len(rates) < 2:
        return []
    return [
        f"the runs are not at one rate, {rates[0]:g} to {rates[-1]:g} bits per example: bits/dim counts codes, but psnr"
        " and the like rise with the rate; at equal rate they can be compared: choose codebook sizes, depth and strides"
        " with the same (codes per example) x log2(codebook size), which toolkit check shows as the rate"
    ]


def unequal_counts(rows: Sequence[Row]) -> list[str]:
    """A note where the runs were evaluated on different numbers of examples."""
    counts = dict.fromkeys(str(row.metrics.get("examples")) for row in rows)
    if len(counts) < 2:
        return []
    numbers = ", ".join(counts)
    return [f"the runs were evaluated on different numbers of examples, {numbers}: examples=N evaluates them again"]
