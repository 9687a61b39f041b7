"""Several runs on one page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from toolkit.page.contents import Table, evaluation_of
from toolkit.page.curves import Chart, scatter, shown, stages_of
from toolkit.runs.folder import Run

COLUMNS = ("bits_per_dim", "data_bits_per_dim", "code_bits_per_dim", "rate", "psnr", "nmse", "usage", "perplexity")


class Comparison(NamedTuple):
    """What is seen of runs side by side."""

    table: Table
    plane: Chart | None
    """Distortion over rate, a dot per run."""
    stages: dict[str, list[Chart]]


def comparison_of(runs: Mapping[str, Run]) -> Comparison:
    """Runs by label; metrics are those of ``toolkit evaluate``, where it was asked."""
    metrics = {label: evaluation_of(run) for label, run in runs.items()}
    columns = [name for name in COLUMNS if any(_has(values, name) for values in metrics.values())]
    rows = [
        (label, *(shown(float(values[name])) if _has(values, name) else "" for name in columns))
        for label, values in metrics.items()
    ]
    error = next((name for name in ("psnr", "nmse") if any(_has(v, name) for v in metrics.values())), "")
    points = {
        label: (float(values["code_bits_per_dim"]), float(values[error]))
        for label, values in metrics.items()
        if _has(values, "code_bits_per_dim") and _has(values, error)
    }
    return Comparison(
        Table("Metrics", ("run", *columns), rows),
        scatter(f"{error} over bits of codes per dim", points) if points else None,
        stages_of({label: run.log for label, run in runs.items()}),
    )


def _has(values: Mapping[str, Any], name: str) -> bool:
    return isinstance(values.get(name), int | float)
