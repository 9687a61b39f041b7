"""How training reports its progress: the interface, and plain implementations."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Protocol, final

from toolkit import registry
from toolkit.errors import ToolkitError, printable
from toolkit.writing import append_text

SHOWN = ("loss", "nll", "nmse", "mse", "batch_perplexity", "bits_per_dim", "code_bits_per_dim", "perplexity")
"""Metrics worth a place in a line, in this order."""

QUIET = 60.0
"""Seconds without a line after which a long task says how far it is."""


class Report(Protocol):
    """Receives the progress of a run while it is trained."""

    def begin(self, stage: str, done: int, steps: int) -> None:
        """A long task begins: ``done`` of its ``steps`` are done already."""

    def step(self, done: int) -> None:
        """``done`` of the task's steps are done."""

    def metrics(self, split: str, step: int, metrics: Mapping[str, float]) -> None:
        """The metrics logged at a step."""

    def note(self, text: str) -> None:
        """Something the user should know."""


@final
class Silence:
    """Reports nothing."""

    def begin(self, stage: str, done: int, steps: int) -> None: ...

    def step(self, done: int) -> None: ...

    def metrics(self, split: str, step: int, metrics: Mapping[str, float]) -> None: ...

    def note(self, text: str) -> None: ...


@final
class Lines:
    """A line for everything that is logged, and at least one a minute; those of progress have the time of day."""

    def __init__(self) -> None:
        self._pace = Pace()

    def begin(self, stage: str, done: int, steps: int) -> None:
        self._timed(self._pace.begin(stage, done, steps))

    def step(self, done: int) -> None:
        line = self._pace.step(done)
        if line:
            self._timed(line)

    def metrics(self, split: str, step: int, metrics: Mapping[str, float]) -> None:
        self._timed(self._pace.metrics(split, step, metrics))

    def note(self, text: str) -> None:
        print(printable(text), flush=True)

    def _timed(self, line: str) -> None:
        self.note(f"{datetime.now():%H:%M:%S} {line}")


class Pace:
    """Lines of how far a long task is: with its total, and the time left."""

    def __init__(self) -> None:
        self._stage, self._steps = "", 0
        self._first, self._began = 0, time.monotonic()
        self._shown = self._began

    def begin(self, stage: str, done: int, steps: int) -> str:
        """The first line of a task."""
        self._stage, self._steps = stage, steps
        self._first, self._began = done, time.monotonic()
        self._shown = self._began
        return f"{stage}: from {done} to {steps}"

    def metrics(self, split: str, step: int, metrics: Mapping[str, float]) -> str:
        """The line of a step that is logged."""
        self._shown = time.monotonic()
        seconds = metrics.get("seconds_left")
        left = f"  {duration(seconds)} left" if seconds and step < self._steps else ""
        return f"{self._stage} {split} step {step}/{self._steps}: {brief(metrics)}{left}"

    def step(self, done: int) -> str:
        """A line where there was none for a minute, else nothing."""
        now = time.monotonic()
        if now - self._shown < QUIET:
            return ""
        self._shown = now
        speed = (done - self._first) / (now - self._began)
        left = f", {duration((self._steps - done) / speed)} left" if speed else ""
        return f"{self._stage}: {done}/{self._steps}{left}"


def duration(seconds: float) -> str:
    """Such as ``40 s``, ``12 min``, ``3 h 05 min`` or ``2 d 4 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def brief(metrics: Mapping[str, float]) -> str:
    """The metrics worth a line."""
    speed = metrics.get("steps_per_second")
    words = [f"{name} {metrics[name]:.4g}" for name in SHOWN if name in metrics]
    return "  ".join(words + ([f"{speed:.3g} steps/s"] if speed else []))


@final
class LogFile:
    """A report that also writes what it shows to a file, each line with its time.

    What comes before ``open`` is written then. While entered, it also writes what the parts' packages log.
    """

    def __init__(self, report: Report) -> None:
        self._report, self._pace = report, Pace()
        self._path: Path | None = None
        self._kept: list[str] = []
        self._handler = _Handler(self._write)

    def __enter__(self) -> LogFile:
        for name in registry.packages():
            logging.getLogger(name).addHandler(self._handler)
        return self

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> None:
        for name in registry.packages():
            logging.getLogger(name).removeHandler(self._handler)
        if error is not None:
            text = str(error) if isinstance(error, ToolkitError) else f"{type(error).__name__}: {error}".rstrip(": ")
            self._write(f"ended: {text}")

    def open(self, path: Path) -> None:
        """Where the lines go."""
        self._path, kept = path, self._kept
        self._kept = []
        for line in kept:
            self._append(line)

    def begin(self, stage: str, done: int, steps: int) -> None:
        self._write(self._pace.begin(stage, done, steps))
        self._report.begin(stage, done, steps)

    def step(self, done: int) -> None:
        line = self._pace.step(done)
        if line:
            self._write(line)
        self._report.step(done)

    def metrics(self, split: str, step: int, metrics: Mapping[str, float]) -> None:
        self._write(self._pace.metrics(split, step, metrics))
        self._report.metrics(split, step, metrics)

    def note(self, text: str) -> None:
        self._write(text)
        self._report.note(text)

    def _write(self, text: str) -> None:
        line = f"{datetime.now():%Y-%m-%d %H:%M:%S} {printable(text)}\n"
        if self._path is None:
            self._kept.append(line)
        else:
            self._append(line)

    def _append(self, line: str) -> None:
        assert self._path is not None
        with suppress(OSError):  # a full disk ends no training here
            append_text(self._path, line)


class _Handler(logging.Handler):
    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        self._write(f"note: {record.getMessage()}")
