"""What training records: its log, validations, pictures and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar, final

from toolkit import interrupts
from toolkit.adversary import CriticWatch
from toolkit.batches import TrainBatches
from toolkit.coded_batches import CodedBatches
from toolkit.device import exact, peak_memory, random_kept
from toolkit.distributed import Largest, broadcast_object, on_rank0, raise_together, rank, ranks
from toolkit.errors import Interrupted, NotFiniteError, ToolkitError
from toolkit.fit import device_of
from toolkit.optimization import Optimization
from toolkit.peers import PeerError
from toolkit.report import Report
from toolkit.running_metrics import RunningMetrics
from toolkit.runs.checkpoint import Checkpoint, found, newest, set_aside
from toolkit.runs.folder import Run
from toolkit.runs.saving import save
from toolkit.stages.choice import Choice
from toolkit.step import Metrics
from toolkit.stream_batches import Place, StreamBatches, facts_of

Batches = TrainBatches | StreamBatches | CodedBatches
Result = TypeVar("Result")


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
        choice: Choice | None = None,
        *,
        facts: dict[str, Any] | None = None,
        validate: Callable[[], dict[str, float]] | None = None,
        plot: Callable[[Path], None] | None = None,
        saved: Callable[[str, int, Path], None] | None = None,
        whole: bool = True,
    ) -> None:
        """``whole``: whether a sharded module is gathered to be saved; else each rank saves what it has."""
        self.run, self.stage, self.folder = run, stage, folder
        self.optimization, self.report, self.facts = optimization, report, facts or {}
        self.choice = choice or Choice(stage, folder, None, optimization.options, stage)
        self.validate, self.plot, self.saved, self.whole = validate, plot, saved, whole
        self.running = RunningMetrics()
        self._critic = CriticWatch(optimization.options)
        self.saved_facts: dict[str, Any] = {}
        """Those of the checkpoint that it went back to."""
        self._batches: Batches | None = None
        self._place: Place | None = None
        self._saved = self._recorded = -1
        self._apart = False
        """Whether the metrics' sums are each rank's own, since they were last averaged."""

    def resume(self) -> None:
        """Goes back to the newest whole checkpoint, or to the start; the log is cut to match."""
        checkpoint = on_rank0(self._tidy) or newest(self.folder, [])
        if checkpoint is not None:
            metrics = checkpoint.load_state(self.optimization)
            self.running.load(metrics, device_of(self.optimization.module))
            self._saved, self.saved_facts = checkpoint.step, checkpoint.facts
        self.choice.recall(self.run.log)

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

    def follow(self, updates: Iterator[Metrics], batches: Batches) -> None:
        """Records every update. ToolkitError, naming the last good checkpoint, where loss or weights are not finite.

        Where a signal asks to stop, the step at hand is finished and saved, on all ranks the same one, and Interrupted
        is raised.
        """
        self.report.begin(self.stage, self.optimization.step, self.optimization.options.steps)
        with interrupts.deferred():
            try:
                self._make_up()
                if not self.choice.ended:
                    self._follow(updates, batches)
            except KeyboardInterrupt as e:
                if isinstance(e, Interrupted) or not interrupts.asked():
                    self._save_interrupted(together=isinstance(e, Interrupted))
                raise
            if interrupts.asked():
                raise Interrupted(interrupts.asked())

    def _follow(self, updates: Iterator[Metrics], batches: Batches) -> None:
        options, running = self.optimization.options, self.running
        self._batches = batches
        clock, rate, largest = _LoopClock(self.optimization, batches), self.optimization.learning_rate, Largest()
        for metrics in self._finite(updates):
            step = self.optimization.step
            last = step == options.steps
            running.add(step, metrics)
            self._recorded, self._place = step, batches.place
            logs, saves = (last or step % every == 0 for every in (options.log_every, options.checkpoint_every))
            saves = saves or (self.choice.rule is not None and self._due(step, last)[0])
            stop = largest(interrupts.asked(), now=last)
            self._apart = not (logs or saves)
            if not self._apart:
                running.average()
            if logs or saves or stop:
                with raise_together():  # all ranks stop together
                    self._check(saves or bool(stop))
            if logs:
                means, steps = running.drain(), running.drained
                self._log("train", means | {"learning_rate": rate} | clock.metrics(step))
                if (text := self._critic(steps, means)) and rank() == 0:
                    self.report.note(f"note: {text}")
            with clock.stopped():
                if saves or stop:  # first of all: a validation may fail, or be stopped, and is then made up for
                    self.save()
                if stop:
                    raise Interrupted(stop)
                self._evaluate(*self._due(step, last))
            self.report.step(step)
            rate = self.optimization.learning_rate
            if self.choice.ended:
                break
        if self.choice.ended and (stop := largest(interrupts.asked(), now=True)):  # the last step asks by itself
            raise Interrupted(stop)

    def finish(self) -> None:
        """Where no step is to be done: saves what there is, validates and plots it."""
        self.report.begin(self.stage, self.optimization.step, self.optimization.options.steps)
        self.save()
        self._evaluate(*self._due(self.optimization.step, last=True))

    def make_up(self) -> None:
        """Where all steps are done: validates and plots, where the run was stopped before it did."""
        if any(self._missing()):
            self.report.begin(self.stage, self.optimization.step, self.optimization.options.steps)
            self._make_up()

    def _make_up(self) -> None:
        self._evaluate(*self._missing())

    def _missing(self) -> tuple[bool, bool]:
        """Whether a validation and a picture were due at the checkpoint's step, and are not there."""
        step = self.optimization.step
        if self._saved != step:
            return False, False
        validates, plots = self._due(step, step == self.optimization.options.steps or self.choice.ended)
        there = broadcast_object(on_rank0(partial(self._there, step)))
        return validates and not there[0], plots and not there[1]

    def _there(self, step: int) -> tuple[bool, bool]:
        """Whether the log holds a validation of a step, and the run its picture."""
        wanted = {"stage": self.stage, "split": "val", "step": step}
        return any(wanted.items() <= line.items() for line in self.run.log), self._picture(step).is_file()

    def _finite(self, updates: Iterator[Metrics]) -> Iterator[Metrics]:
        """The updates, until a part rejects non-finite numbers; an earlier step's loss may say where they began."""
        try:
            yield from updates
        except NotFiniteError as e:
            self._check(saves=False)
            self._stop(str(e))

    def _due(self, step: int, last: bool) -> tuple[bool, bool]:
        """Whether a validation and a picture are due after a step."""
        options = self.optimization.options
        return (
            self.validate is not None and (last or step % options.validate_every == 0),
            self.plot is not None and (last or step % options.pictures_every == 0),
        )

    def _evaluate(self, validates: bool, plots: bool) -> None:
        step = self.optimization.step
        if validates and self.validate:
            with raise_together():
                metrics = self._with_averages(self.validate, stoppable=ranks() == 1)
            self._log("val", metrics)
            self.choice.judge(step, metrics)
        if (plots or (validates and self.choice.ended)) and self.plot:
            stop = on_rank0(partial(self._plotted, partial(self.plot, self._picture(step))))
            if stop := broadcast_object(stop):
                raise Interrupted(stop)

    def _plotted(self, plot: Callable[[], None]) -> int:
        """Plots; returns the number of a signal that has ended it, for all ranks to know."""
        try:
            self._with_averages(plot, stoppable=True)
        except Interrupted as e:
            return e.number
        return 0

    def _picture(self, step: int) -> Path:
        return self.run.samples / f"{self.stage}-{step:08d}.png"

    def save(self) -> None:
        """Saves the last step; all ranks take part."""
        step, keep = self.optimization.step, self.optimization.options.keep
        self._saved, best = step, self.choice.best
        facts = {**self.facts, **facts_of(self._place)}
        spared = best.step if best else None
        metrics = self.running.state(self._apart)
        save(self.folder, self.optimization, facts, metrics, keep=keep, spared=spared, whole=self.whole)
        if self.saved and rank() == 0:
            self.saved(self.stage, step, self.folder / f"step-{step:08d}")

    def _save_interrupted(self, together: bool) -> None:
        """Saves the last step, unless that is done or the interrupt came in the middle of the next one.

        ``together``: all ranks were interrupted at the same place.
        """
        step = self.optimization.step
        alone = ranks() > 1 and not together
        if alone or self._saved == step or self._recorded != step or not self.optimization.intact:
            return
        with suppress(NotFiniteError, PeerError):
            with raise_together():
                self._check_numbers()
                if not self.optimization.finite():
                    raise NotFiniteError
            self.save()

    def _with_averages(self, act: Callable[[], Result], stoppable: bool) -> Result:
        """Calls ``act`` with the averaged weights, in true float32, and leaves training's random numbers alone.

        ``stoppable``: a signal ends ``act`` at once.
        """
        signals = interrupts.allowed() if stoppable else nullcontext()
        device = device_of(self.optimization.module)
        with random_kept(), exact(device), self.optimization.averaged(), signals:
            result = act()
        self.optimization.module.train()
        return result

    def _log(self, split: str, metrics: dict[str, float] | None) -> None:
        if rank() == 0 and metrics is not None:
            self.run.log.append(self.stage, split, self.optimization.step, metrics)
            self.report.metrics(split, self.optimization.step, metrics)

    def _check_numbers(self) -> None:
        """NotFiniteError where a step's metrics, or latents of batches that were encoded in it, were not finite."""
        self.running.check()
        if isinstance(self._batches, CodedBatches):
            self._batches.check()

    def _check(self, saves: bool) -> None:
        try:
            self._check_numbers()
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

    def __init__(self, optimization: Optimization, batches: Batches) -> None:
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
