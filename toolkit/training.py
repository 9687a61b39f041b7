"""The training loop, and what it records."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Self, cast, final

import torch
from torch import Tensor, nn

from toolkit.autoencoder import Autoencoder
from toolkit.batches import Batch, TrainBatches
from toolkit.device import autocast, peak_memory
from toolkit.distributed import all_reduce_mean, no_sync, on_rank0, raise_together, rank, ranks, wrap_ddp
from toolkit.errors import NotFiniteError, ToolkitError
from toolkit.fit import device_of
from toolkit.objective import Loss, Objective
from toolkit.optimization import Group, Optimization, trainable
from toolkit.options import AutoencoderTrainerOptions, TrainerOptions
from toolkit.prior import Prior
from toolkit.report import Report
from toolkit.running_metrics import RunningMetrics, autoencoder_metrics, mean_metrics
from toolkit.runs.checkpoint import Checkpoint, found, newest, save, set_aside
from toolkit.runs.folder import Run

Metrics = dict[str, Tensor]


class StepLoss(NamedTuple):
    """The loss of a batch, for a stage that reports nothing else."""

    loss: Tensor


PREFIXES = {
    "encoder": "model.encoder.",
    "quantizer": "model.quantizer.",
    "decoder": "model.decoder.",
    "objective": "objective.",
}
"""Of the parameters of each part of stage one."""
CRITIC = "objective.critic."


@final
class Stage(nn.Module):
    """Stage one: objective and autoencoder. The parts named in ``freeze`` stay as they are."""

    def __init__(self, objective: Objective, model: Autoencoder, freeze: Collection[str] = ()) -> None:
        super().__init__()
        self.objective, self.model, self._frozen = objective, model, tuple(freeze)
        for part in self._frozen:
            self._part(part).requires_grad_(False)

    def forward(self, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        return self.objective(self.model, x, conditions)

    def metrics(self, output: Loss, x: Tensor) -> Metrics:
        return autoencoder_metrics(output, x, self.model.data, self.model.code_spec)

    def train(self, mode: bool = True) -> Self:
        """Frozen parts stay in eval mode: no codebook of theirs moves."""
        super().train(mode)
        for part in self._frozen:
            self._part(part).eval()
        return self

    def groups(self, options: AutoencoderTrainerOptions) -> list[Group]:
        """What is trained with which learning rate: all but the critic, and the critic."""
        parameters = trainable(self)
        critic = {name: p for name, p in parameters.items() if name.startswith(CRITIC)}
        rest = {name: p for name, p in parameters.items() if name not in critic}
        factors = {PREFIXES[part]: factor for part, factor in options.learning_rate_factors.items()}
        groups = [Group(rest, options.learning_rate, options.betas, options.clip, factors)]
        if critic:
            learning_rate, betas = options.critic_learning_rate, options.critic_betas
            groups.append(
                Group(
                    critic,
                    learning_rate or options.learning_rate,
                    betas or options.betas,
                    options.critic_clip,
                    prefix="critic_",
                    averaged=False,
                )
            )
        return [group for group in groups if group.parameters]

    def _part(self, name: str) -> nn.Module:
        return self.get_submodule(PREFIXES[name].removesuffix("."))


@final
class PriorStage(nn.Module):
    """Stage two: a prior, and codes in place of data."""

    def __init__(self, model: Prior) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, conditions: Mapping[str, Tensor]) -> StepLoss:
        return StepLoss(self.model.loss(x, conditions).mean())

    def metrics(self, output: StepLoss, x: Tensor) -> Metrics:
        return {"loss": output.loss.detach()}


def train_steps(stage: Stage | PriorStage, batches: TrainBatches, optimization: Optimization) -> Iterator[Metrics]:
    """Updates until all steps are done; yields the metrics of each."""
    options = optimization.options
    critic = _Critic.of(stage, optimization)
    adversary = critic.module if critic else None
    with frozen(adversary):
        forward = _wrapped(stage, options)
    stage.train()
    while not optimization.done:
        parts = []
        for number in range(options.accumulate):
            batch = next(batches)
            with no_sync(forward, number + 1 < options.accumulate), frozen(adversary):
                with autocast(batches.device, options.precision):
                    output = forward(batch.x, batch.conditions)
                (output.loss / options.accumulate).backward()
            parts.append(stage.metrics(output, batch.x))
            if critic:
                parts[-1]["critic_loss"] = critic.learn(cast(Loss, output), batch)
            del output, batch  # frees their memory for the next pass
        if critic:
            critic.average()
        norms = optimization.update()
        yield {**mean_metrics(parts), **norms}


@contextmanager
def frozen(module: nn.Module | None) -> Iterator[None]:
    """No parameter of the module, if there is one, requires a gradient while the block lasts."""
    parameters = list(trainable(module).values()) if module is not None else []
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@dataclass(frozen=True)
class _Critic:
    """The critic of stage one's objective, and how it gets its gradients."""

    stage: Stage
    module: nn.Module
    optimization: Optimization
    options: AutoencoderTrainerOptions

    @classmethod
    def of(cls, stage: Stage | PriorStage, optimization: Optimization) -> _Critic | None:
        """The stage's, where it has one that is trained."""
        module, options = getattr(getattr(stage, "objective", None), "critic", None), optimization.options
        if module is None or not trainable(module) or not isinstance(options, AutoencoderTrainerOptions):
            return None
        return cls(cast(Stage, stage), module, optimization, options)

    def learn(self, output: Loss, batch: Batch) -> Tensor:
        """Adds the gradients of a batch, from the first step on; returns the loss, 0-d, 0 before."""
        if self.optimization.step < self.options.critic_start:
            return output.loss.detach().new_zeros(())
        stage, parameters = self.stage, list(trainable(self.module).values())
        with autocast(batch.x.device, self.options.precision):
            loss: Tensor = stage.objective.critic_loss(stage.model, batch.x, batch.conditions, output)
        # not loss.backward(): whatever else the loss depends on gets no gradient
        gradients = torch.autograd.grad(loss / self.options.accumulate, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return loss.detach()

    def average(self) -> None:
        """Gradients become the means over the ranks."""
        gradients = [parameter.grad for parameter in self.module.parameters() if parameter.grad is not None]
        if ranks() > 1 and gradients:
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            all_reduce_mean(flat)
            for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(mean.view_as(gradient))


def _wrapped(stage: nn.Module, options: TrainerOptions) -> nn.Module:
    """The stage as the loop calls it: compiled where asked for, gradients averaged over the ranks."""
    if not options.compile:
        return wrap_ddp(stage)
    if ranks() > 1 and isinstance(stage, Stage):
        # Each rank compiles by itself: the collectives could end up in another order on each, and deadlock.
        quantizer = stage.model.quantizer
        quantizer.forward = torch.compiler.disable(quantizer.forward)  # type: ignore[method-assign]
    return wrap_ddp(cast(nn.Module, torch.compile(stage)))


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
