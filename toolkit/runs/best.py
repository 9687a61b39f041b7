"""The best checkpoint of a stage, by a figure of its validations: found in the log, and noted beside the checkpoints.

``best.json``: ``figure``, such as ``val/nmse``, ``mode``, which is ``min`` or ``max``, ``step`` and ``value``. The log
alone decides: a run that is continued goes back to the log of its checkpoint, and so to the best one of that time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import Any, NamedTuple, get_args

from toolkit.metric import Direction
from toolkit.options import VALIDATED
from toolkit.runs.plain import read_json
from toolkit.writing import write_text

FILE = "best.json"
LONGEST = 200
"""Characters of a figure's name."""


class Rule(NamedTuple):
    """What is compared."""

    figure: str
    """Its name in a line of the validation, such as ``nmse``."""
    mode: Direction

    def better(self, value: float, than: float) -> bool:
        """NaN is never better, and is worse than any number."""
        if isnan(value) or isnan(than):
            return isnan(than) and not isnan(value)
        return value < than if self.mode == "min" else value > than


@dataclass(frozen=True)
class Best:
    """A validation that none was better than."""

    figure: str
    """As ``trainer.best`` names it: ``val/nmse``."""
    mode: Direction
    step: int
    value: float

    def __str__(self) -> str:
        return f"{self.figure} {self.value:.4g} at step {self.step}"


class Judged(NamedTuple):
    """The best validation of a stage so far."""

    best: Best | None
    """None where no validation had a number."""
    since: int
    """Validations after it, or all."""


def judged(lines: Iterable[Mapping[str, Any]], stage: str, rule: Rule) -> Judged:
    """The first of the best validations among the lines of a log."""
    found = Judged(None, 0)
    for line in lines:
        if line["stage"] == stage and line["split"] == VALIDATED:
            found = after(found, rule, line["step"], float(line.get(rule.figure, "nan")))
    return found


def after(found: Judged, rule: Rule, step: int, value: float) -> Judged:
    """The same with one validation more."""
    if rule.better(value, found.best.value if found.best else float("nan")):
        return Judged(Best(f"{VALIDATED}/{rule.figure}", rule.mode, step, value), 0)
    return Judged(found.best, found.since + 1)


def write_best(folder: Path, best: Best | None) -> None:
    """Notes it beside a stage's checkpoints; None: there is none any more."""
    if best is None:
        (folder / FILE).unlink(missing_ok=True)
    elif best != read_best(folder):
        write_text(folder / FILE, json.dumps(asdict(best), indent=1))


def read_best(folder: Path) -> Best | None:
    """What was noted; None where nothing was, or nothing that can be read."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        values = read_json(folder / FILE)
        best = Best(*(values[name] for name in ("figure", "mode", "step", "value")))
        if _is_valid(best):
            return best
    return None


def _is_valid(best: Best) -> bool:
    return (
        isinstance(best.figure, str)
        and len(best.figure) <= LONGEST
        and best.figure.isprintable()
        and best.mode in get_args(Direction)
        and type(best.step) is int
        and 0 <= best.step < 1 << 63
        and isinstance(best.value, int | float)
        and not isnan(best.value)
    )
