"""What training records: its log, validations, pictures and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, final

import torch

from toolkit.batches import TrainBatches
from toolkit.device import peak_memory
from toolkit.distributed import on_rank0, raise_together, rank, ranks
from toolkit.errors import NotFiniteError, ToolkitError
from toolkit.fit import device_of
from toolkit.optimization import Optimization
from toolkit.report import Report
from toolkit.running_metrics import RunningMetrics
from toolkit.runs.checkpoint import Checkpoint, found, newest, save, set_aside
from toolkit.runs.folder import Run
from toolkit.training import Metrics


@final
class Recorder:
    """Follows a loop: writes its log, validates, plots, saves checkpoints. The folder holds one stage's checkpoints."""

    def __init__(
        self,
        run: Run,
        stage: str,
        folder: Path,
        optimization: Optimization,
        report: Report,
        *,
        facts: dict[str, Any] | None = None,
        validate: Callable[[], dict[str, float]] | None = None,
        plot: Callable[[Path], None] | None = None,
    ) -> None:
        self.run, self.stage, self.folder = run, stage, folder
        self.optimization, self.report, self.facts = optimization, report, facts or {}
        self.validate, self.plot = validate, plot
        self.running = RunningMetrics()

    def resume(self) -> None:
        """Goes back to the newest whole checkpoint, or to the start; the log is cut to match."""
        checkpoint = on_rank0(self._tidy) or newest(self.folder, [])
        if checkpoint is not None:
            metrics = checkpoint.load_state(self.optimization)
            self.running.load(metrics, device_of(self.optimization.module))

    def _tidy(self) -> Checkpoint | None:
        """Reports damaged checkpoints and sets them aside; cuts the log at the newest whole one."""
        notices: list[str] = []
        checkpoint = newest(self.folder, notices)
        for text in notices:
            self.report.note(text)
        for newer in found(self.folder):
            if checkpoint is not None and newer.name > checkpoint.path.name:
                set_aside(newer)
        self.run.log.cut(self.stage, checkpoint.step if checkpoint else 0)
        return checkpoint

    def follow(self, updates: Iterator[Metrics], batches: TrainBatches) -> None:
        """Records every update. ToolkitError, naming the last good checkpoint, where loss or weights are not finite."""
        options, running = self.optimization.options, self.running
        self.report.begin(self.stage, self.optimization.step, options.steps)
        clock, rate = _LoopClock(self.optimization, batches), self.optimization.learning_rate
        for metrics in self._finite(updates):
            step = self.optimization.step
            last = step == options.steps
            running.add(step, metrics)
            logs, saves = (last or step % every == 0 for every in (options.log_every, options.checkpoint_every))
            if logs or saves:
                running.average()
                with raise_together():  # all ranks stop together
                    self._check(saves)
            if logs:
                self._log("train", running.drain() | {"learning_rate": rate} | clock.metrics(step))
            with clock.stopped():
                try:
                    self._evaluate(step, last)
                finally:  # a picture that cannot be plotted must not cost the checkpoint
                    if saves:
                        self.save()
            self.report.step(step)
            rate = self.optimization.learning_rate

    def finish(self) -> None:
        """Where no step is to be done: validates, plots and saves what there is."""
        self.report.begin(self.stage, self.optimization.step, self.optimization.options.steps)
        try:
            self._evaluate(self.optimization.step, last=True)
        finally:
            self.save()

    def _finite(self, updates: Iterator[Metrics]) -> Iterator[Metrics]:
        """The updates, until a part rejects non-finite numbers; an earlier step's loss may say where they began."""
        try:
            yield from updates
        except NotFiniteError as e:
            self._check(saves=False)
            self._stop(str(e))

    def _evaluate(self, step: int, last: bool) -> None:
        """Validates and plots, where that is due."""
        options = self.optimization.options
        if self.validate and (last or step % options.validate_every == 0):
            with raise_together():
                metrics = self._with_averages(self.validate)
            self._log("val", metrics)
        if self.plot and (last or step % options.pictures_every == 0):
            picture = self.run.samples / f"{self.stage}-{step:08d}.png"
            on_rank0(partial(self._with_averages, partial(self.plot, picture)))

    def save(self) -> None:
        keep = self.optimization.options.keep
        save(self.folder, self.optimization, self.facts, self.running.state(), keep=keep)

    def _with_averages(self, act: Callable[[], Any]) -> Any:
        """Calls ``act`` with the averaged weights, and leaves training's random numbers alone."""
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices), self.optimization.averaged():
            result = act()
        self.optimization.module.train()
        return result

    def _log(self, split: str, metrics: dict[str, float] | None) -> None:
        if rank() == 0 and metrics is not None:
            self.run.log.append(self.stage, split, self.optimization.step, metrics)
            self.report.metrics(split, self.optimization.step, metrics)

    def _check(self, saves: bool) -> None:
        try:
            self.running.check()
        except NotFiniteError as e:
            self._stop(str(e))
        if saves and not self.optimization.finite():
            self._stop(f"the weights became NaN or infinite after step {self.optimization.step}")

    def _stop(self, why: str) -> NoReturn:
        kept = found(self.folder)
        good = f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was written yet"
        raise ToolkitError(f"{self.stage}: {why}; {good}\na lower learning_rate or clip=1 of its trainer may help")


CLOCKED = (
    "steps_per_second",
    "examples_per_second",
    "positions_per_second",
    "data_wait",
    "peak_memory_gib",
    "seconds_left",
)
"""What a line of the log says of time and memory, and not of the model."""


class _LoopClock:
    """Speed of the loop between two log lines, without validation, pictures and checkpoints."""

    def __init__(self, optimization: Optimization, batches: TrainBatches) -> None:
        self.batches, self.options, self._first = batches, optimization.options, optimization.step
        self._entered = time.perf_counter()
        self._start(optimization.step)

    def metrics(self, step: int) -> dict[str, float]:
        """``CLOCKED`` and the total of steps; speeds are of all ranks.

        ``data_wait`` is the share of the time spent waiting for data. ``seconds_left`` counts everything, as the steps
        of this process took. Positions are those of x, without channels or depths.
        """
        now, options = time.perf_counter(), self.options
        steps = (step - self._step) / (now - self._began)
        examples = steps * options.batch_size * options.accumulate * ranks()
        metrics = {
            "steps_per_second": steps,
            "examples_per_second": examples,
            "positions_per_second": examples * self.batches.positions,
            "data_wait": (self.batches.waited - self._waited) / (now - self._began),
            "peak_memory_gib": peak_memory(self.batches.device),
            "seconds_left": (options.steps - step) * (now - self._entered) / (step - self._first),
            "total_steps": options.steps,
        }
        self._start(step)
        return metrics

    @contextmanager
    def stopped(self) -> Iterator[None]:
        since = time.perf_counter()
        yield
        self._began += time.perf_counter() - since

    def _start(self, step: int) -> None:
        self._began, self._waited, self._step = time.perf_counter(), self.batches.waited, step
