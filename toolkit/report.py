"""How training reports its progress: the interface, and plain implementations."""

from __future__ import annotations

import logging
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
    """A printed line for everything that is logged."""

    def __init__(self) -> None:
        self._stage = ""

    def begin(self, stage: str, done: int, steps: int) -> None:
        self._stage = stage
        self.note(f"{stage}: from {done} to {steps}")

    def step(self, done: int) -> None: ...

    def metrics(self, split: str, step: int, metrics: Mapping[str, float]) -> None:
        self.note(f"{self._stage} {split} {step}: {brief(metrics)}")

    def note(self, text: str) -> None:
        print(printable(text), flush=True)


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
        self._report, self._stage = report, ""
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
        self._stage = stage
        self._write(f"{stage}: from {done} to {steps}")
        self._report.begin(stage, done, steps)

    def step(self, done: int) -> None:
        self._report.step(done)

    def metrics(self, split: str, step: int, metrics: Mapping[str, float]) -> None:
        self._write(f"{self._stage} {split} {step}: {brief(metrics)}")
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
