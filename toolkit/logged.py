"""A report that passes a run's metrics and pictures to its loggers, whose failures cost no training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import final

from toolkit.blame import blame
from toolkit.device import random_kept
from toolkit.errors import ToolkitError
from toolkit.logger import Logger, Status
from toolkit.report import Report


@final
class Logged:
    """A report that also passes metrics, and pictures, to loggers; entered, it closes them at the end.

    A logger that raises is told once, and from then on only closed. None of them changes training's random numbers.
    """

    def __init__(self, report: Report) -> None:
        self._report, self._stage = report, ""
        self._loggers: dict[str, Logger] = {}
        self._failed: set[str] = set()

    def __enter__(self) -> Logged:
        return self

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> None:
        status: Status = "done" if error is None else "failed" if isinstance(error, Exception) else "stopped"
        for name in self._loggers:
            self._call(name, lambda logger: logger.close(status))

    def add(self, loggers: Iterable[tuple[str, Logger]]) -> None:
        """Loggers with their names; those that come before an error are closed all the same."""
        with random_kept():
            for name, logger in loggers:
                self._loggers[name] = logger

    def begin(self, stage: str, done: int, steps: int) -> None:
        self._stage = stage
        self._report.begin(stage, done, steps)

    def step(self, done: int) -> None:
        self._report.step(done)

    def metrics(self, split: str, step: int, metrics: Mapping[str, float]) -> None:
        self._report.metrics(split, step, metrics)
        self._each(lambda logger: logger.log(self._stage, split, step, dict(metrics)))

    def picture(self, stage: str, step: int, path: Path) -> None:
        """A picture that was plotted at a step of a stage."""
        self._each(lambda logger: logger.picture(stage, step, path))

    def note(self, text: str) -> None:
        self._report.note(text)

    def _each(self, act: Callable[[Logger], None]) -> None:
        """For each logger that has not failed."""
        for name in self._loggers:
            if name not in self._failed:
                self._call(name, act)

    def _call(self, name: str, act: Callable[[Logger], None]) -> None:
        try:
            with random_kept():
                act(self._loggers[name])
        except Exception as error:  # a logger is another's code, and a service may be gone
            if name not in self._failed:
                reason = str(error) if isinstance(error, ToolkitError) else blame(error)
                self.note(f"logger={name} failed, and is given no more of this training: {reason}")
            self._failed.add(name)
