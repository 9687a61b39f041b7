"""A report that passes a run's metrics and pictures to its loggers, whose failures cost no training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from queue import Empty
from typing import TypeVar, final

from torch import Tensor

from toolkit.aside import Aside
from toolkit.blame import blame
from toolkit.device import random_kept
from toolkit.errors import ToolkitError
from toolkit.logger import Logger, Status
from toolkit.report import Report
from toolkit.spec import DataSpec

Result = TypeVar("Result")

PATIENCE = 30.0
"""Seconds that a logger's call may take."""


@final
class Logged:
    """A report that also passes metrics, and pictures, to loggers; entered, it closes them at the end.

    A logger that raises is told once, and from then on only closed; one that does not answer, such as a service's whose
    network is gone, is left alone. None of them changes training's random numbers.
    """

    def __init__(self, report: Report) -> None:
        self._report, self._stage = report, ""
        self._loggers: dict[str, Logger] = {}
        self._threads: dict[str, Aside] = {}
        self._failed: set[str] = set()
        self._hanging: set[str] = set()

    def __enter__(self) -> Logged:
        return self

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> None:
        status: Status = "done" if error is None else "failed" if isinstance(error, Exception) else "stopped"
        for name in self._loggers:
            if name not in self._hanging:
                self._call(name, lambda logger: logger.close(status))
            self._threads[name].end()

    def add(self, loggers: Iterable[tuple[str, Logger]]) -> None:
        """Loggers with their names; those that come before an error are closed all the same. ToolkitError where one
        does not answer."""
        remaining = iter(loggers)
        while True:
            thread = Aside()
            try:
                found = self._patiently(thread, lambda: next(remaining, None))
            except Empty:
                after = f"after {', '.join(self._loggers)} " if self._loggers else ""
                raise ToolkitError(
                    f"the logger that is built {after}has not answered for {PATIENCE:g} s: leave it out, or see what it"
                    " waits for"
                ) from None
            if found is None:
                thread.end()
                return
            self._loggers[found[0]], self._threads[found[0]] = found[1], thread

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

    def examples(self, stage: str, step: int, examples: Mapping[str, Tensor], data: DataSpec) -> None:
        """What such a picture shows."""
        self._each(lambda logger: logger.examples(stage, step, dict(examples), data))

    def histograms(self, stage: str, step: int, counts: Mapping[str, Tensor]) -> None:
        """What the metrics of a validation have counted."""
        if counts:
            self._each(lambda logger: logger.histograms(stage, step, dict(counts)))

    def checkpoint(self, stage: str, step: int, folder: Path) -> None:
        """A checkpoint that was saved at a step of a stage."""
        self._each(lambda logger: logger.checkpoint(stage, step, folder))

    def note(self, text: str) -> None:
        self._report.note(text)

    def _each(self, act: Callable[[Logger], None]) -> None:
        """For each logger that has not failed."""
        for name in self._loggers:
            if name not in self._failed:
                self._call(name, act)

    def _call(self, name: str, act: Callable[[Logger], None]) -> None:
        try:
            self._patiently(self._threads[name], lambda: act(self._loggers[name]))
        except Empty:
            self._hanging.add(name)
            self._failed.add(name)
            self.note(f"logger={name} has not answered for {PATIENCE:g} s, and is given no more of this training")
        except Exception as error:  # a logger is another's code, and a service may be gone
            if name not in self._failed:
                reason = str(error) if isinstance(error, ToolkitError) else blame(error)
                self.note(f"logger={name} failed, and is given no more of this training: {reason}")
            self._failed.add(name)

    def _patiently(self, thread: Aside, act: Callable[[], Result]) -> Result:
        """What a logger's code gives, with the random numbers as they were; Empty where it gives nothing in time."""
        with random_kept():
            return thread(act, PATIENCE)
