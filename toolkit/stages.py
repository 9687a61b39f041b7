"""A two-stage run from a checked configuration: what ``toolkit train`` and ``toolkit.train`` both call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from toolkit import collapse, registry
from toolkit.autoencoder import code_spec_on, encoded_grid
from toolkit.batches import Batch, TrainBatches, split_batches
from toolkit.build import asks_for_source, build_loggers, build_metrics, build_prior, build_stage
from toolkit.config import RunConfig
from toolkit.continuation import check_continuation, initialize, is_current
from toolkit.dataset import Dataset, Examples
from toolkit.device import choose_device
from toolkit.distributed import (
    all_gather_object,
    all_reduce_sum,
    check_device,
    collective_timeout,
    on_rank0,
    raise_together,
    rank,
    ranks,
    seed_noise,
)
from toolkit.errors import ToolkitError
from toolkit.evaluation import can_share, evaluate_parts
from toolkit.fit import device_of
from toolkit.interrupts import keyboard
from toolkit.logged import Logged
from toolkit.model import Model, load, open_dataset
from toolkit.optimization import Optimization
from toolkit.options import TrainerOptions
from toolkit.pictures import SHOWN, plot_reconstructions, plot_samples
from toolkit.provenance import components, list_components
from toolkit.quantizer import Quantizer
from toolkit.recorder import Recorder
from toolkit.report import Lines, LogFile, Report, Silence
from toolkit.running_metrics import histogram
from toolkit.runs.checkpoint import Checkpoint, damaged_with, found, newest
from toolkit.runs.code_cache import CodeCache
from toolkit.runs.codes import CachedCodes
from toolkit.runs.folder import Run, write_config
from toolkit.runs.lock import training_lock
from toolkit.scoring import validation_score
from toolkit.spec import CodeSpec, DataSpec
from toolkit.training import PriorStage, Stage, train_steps


def train(config: RunConfig, folder: str | Path, *, report: Report | None = None) -> float | None:
    """Trains what ``config.stage`` says into the folder, continuing from the checkpoints there.

    Everything is built, and so checked to fit, together and with what the folder holds, before a file is written.
    ``report`` receives the progress; by default a line is printed for everything that is logged. Of several ranks,
    every one calls this, and rank 0 writes and reports.

    Returns what a search may minimize: bits per dim or, for a density, nats, of the last validation. Raises
    ToolkitError where the parts do not fit, the folder holds another model or is being trained by another process, or
    the loss is not finite. Where Ctrl-C interrupts a step, that is finished and saved before KeyboardInterrupt is
    raised.
    """
    _check_ranks(config)
    run, progress = Run(Path(folder)), (report or Lines()) if rank() == 0 else Silence()
    with keyboard(), collective_timeout(config.trainer.timeout), ExitStack() as lock, LogFile(progress) as log:
        on_rank0(lambda: lock.enter_context(training_lock(run.path)))
        with Logged(log) as report:
            return _train(config, run, log, report)


def _train(config: RunConfig, run: Run, log: LogFile, report: Logged) -> float | None:
    with raise_together():
        torch.manual_seed(config.seed)
        dataset = open_dataset(config, base=run.base)
        checkpoint = newest(run.autoencoder, [])
        stage = build_stage(config, dataset.spec, checkpoint)
        build_metrics(config, stage.model)
        dataset.example("train", 0, None)
        for trainer in (config.trainer, config.prior_trainer):
            check_device(choose_device(trainer.device))
        with torch.random.fork_rng([]):
            check_continuation(run, config, dataset.spec, stage)
        if config.init and checkpoint is None:
            for notice in initialize(stage, config.init):
                report.note(notice)
    on_rank0(lambda: report.add(build_loggers(config, run.path)))
    seed_noise(config.seed)
    for notice in on_rank0(partial(_write, run, config, dataset, stage)) or []:
        report.note(notice)
    if rank() == 0:
        log.open(run.path / "log.txt")
    _Training(run, config, report).stages(dataset, stage)
    return validation_score(run, dataset.spec, config)


def _check_ranks(config: RunConfig) -> None:
    if config.trainer.ranks not in (1, ranks()):
        raise ToolkitError(
            f"trainer.ranks={config.trainer.ranks}: this process is one of {ranks()}; `toolkit train` starts the"
            " others, or torchrun does"
        )


def _write(run: Run, config: RunConfig, dataset: Dataset, stage: Stage) -> list[str]:
    """Writes the configuration, the specs and who provided the parts; returns what to know of a base's checkpoints."""
    write_config(run.path, config)
    notices: list[str] = []
    if asks_for_source(config) and not run.base.is_dir():
        run.copy_base(Run.open(config.dataset.options["run"]), notices)
    run.write_spec(dataset.spec, stage.model.code_spec)
    parts = {"dataset": dataset, **_parts(stage)}
    run.write_components({**components(config, parts), **list_components(config)})
    return notices


def _parts(stage: Stage) -> dict[str, Any]:
    model = stage.model
    return {
        "encoder": model.encoder,
        "quantizer": model.quantizer,
        "decoder": model.decoder,
        "likelihood": getattr(model.decoder, "likelihood", None),
        "objective": stage.objective,
    }


@dataclass(frozen=True)
class _Training:
    """What both stages of a run share."""

    run: Run
    config: RunConfig
    report: Logged

    def stages(self, dataset: Dataset, stage: Stage) -> None:
        """Trains one after the other, as far as ``config.stage`` says."""
        config = self.config
        examples: Examples = self._base_codes() if asks_for_source(config) else dataset
        if config.stage != "prior":
            self._train_autoencoder(dataset, examples, stage)
        if config.stage == "autoencoder":
            return
        if not stage.model.code_spec.depth:
            self.report.note("the bottleneck is continuous: samples come from the unit normal, no prior is trained")
            return
        self._train_prior(dataset, examples)

    def _share(self, examples: Examples, split: str, options: TrainerOptions, shared: bool = True) -> Iterator[Batch]:
        """This rank's stretch of what a validation reads, or all of it."""
        return split_batches(
            examples,
            split,
            choose_device(options.device),
            batch_size=options.batch_size,
            limit=options.validate_examples,
            workers=0,
            rank=rank() if shared else 0,
            ranks=ranks() if shared else 1,
        )

    def _base_codes(self) -> CachedCodes:
        """The data of a run over another run's codes, encoded once and cached in its copy of that run."""
        base = load(self.run.base, self.config.trainer.device)
        cache = self._cache(base.run, replace(base.config, prior_dataset={}), base, base.code_spec)
        return cache.read(base.dataset)

    def _train_autoencoder(self, dataset: Dataset, examples: Examples, stage: Stage) -> None:
        options = self.config.trainer
        device = choose_device(options.device)
        optimization = Optimization(stage.to(device), options, stage.groups(options))
        shown = min(SHOWN, examples.size("val"))
        noted = set[str]()

        def validate() -> dict[str, float]:
            metrics = build_metrics(self.config, stage.model)
            shared = can_share(metrics)
            batches, training = (self._share(examples, split, options, shared) for split in ("val", "train"))
            evaluation = evaluate_parts(
                stage.objective, stage.model, batches, metrics, training=training, shared=shared
            )
            for warning in evaluation.warnings:
                subject = warning.partition(":")[0]
                if subject not in noted:
                    self.report.note(warning)
                noted.add(subject)
            return {k: v for k, v in evaluation.metrics_by_name().items() if isinstance(v, float)}

        def plot(path: Path) -> None:
            title = f"{self.run.path.name}: autoencoder, step {optimization.step}"
            plot_reconstructions(path, stage, examples, dataset, device, shown, title)

        recorder = Recorder(
            self.run,
            "autoencoder",
            self.run.autoencoder,
            optimization,
            self.report,
            validate=validate if examples.size("val") else None,
            plot=self._pictured("autoencoder", optimization, plot) if shown else None,
        )
        recorder.resume()
        self._loop(recorder, stage, examples, self.config.seed)

    def _train_prior(self, dataset: Dataset, examples: Examples) -> None:
        config, options = self.config, self.config.prior_trainer
        model = Model(self.run, choose_device(options.device))
        for notice in on_rank0(self._damage) or []:
            self.report.note(notice)
        if config.prior_dataset:
            dataset = open_dataset(config, config.prior_dataset, self.run.base)
            examples = dataset
        code_spec = _code_spec_of(model, dataset.spec)
        torch.manual_seed(config.seed + 1)
        prior = build_prior(config, code_spec, dataset.spec)
        seed_noise(config.seed + 1)
        name = config.chosen_prior().name
        on_rank0(partial(self.run.write_components, components(config, {"prior": prior})))
        if not any(True for _ in prior.parameters()):
            self.report.note(f"prior={name} has nothing to train")
            return
        codes = self._cache(self.run, config, model, code_spec).read(examples)
        if not options.allow_collapsed:
            _refuse_collapsed(codes, code_spec, model.autoencoder.quantizer)
        stage = PriorStage(prior)
        optimization = Optimization(stage.to(model.device), options)
        on_rank0(partial(self._rename_stale, name, model.checkpoint))
        on_rank0(partial(write_config, self.run.prior(name), config))

        @torch.no_grad()
        def validate() -> dict[str, float]:
            stage.eval()
            batches = self._share(codes, "val", options)
            own = [stage.model.loss(batch.x, batch.conditions).cpu() for batch in batches]
            losses = [loss for losses in all_gather_object(own) for loss in losses]
            return {"loss": float(torch.cat(losses).double().mean())}

        def plot(path: Path) -> None:
            title = f"{self.run.path.name}: samples of prior {name}, step {optimization.step}, seed {config.seed}"
            plot_samples(path, model, stage.model, codes, dataset, config.seed, title)

        axes = {"grid": list(code_spec.grid), "axes": list(dataset.spec.axes)}
        recorder = Recorder(
            self.run,
            f"prior-{name}",
            self.run.prior(name),
            optimization,
            self.report,
            facts={"autoencoder": model.checkpoint.weights_hash, **axes},
            validate=validate if codes.size("val") else None,
            plot=self._pictured(f"prior-{name}", optimization, plot) if codes.size("val") else None,
        )
        recorder.resume()
        self._loop(recorder, stage, codes, config.seed + 1)

    def _pictured(self, stage: str, optimization: Optimization, plot: Callable[[Path], None]) -> Callable[[Path], None]:
        """The function that plots a picture, which the loggers then get, too."""

        def plotted(path: Path) -> None:
            plot(path)
            self.report.picture(stage, optimization.step, path)

        return plotted

    def _loop(self, recorder: Recorder, stage: Stage | PriorStage, examples: Examples, seed: int) -> None:
        """Runs the training loop from where the checkpoint stopped, and records it."""
        optimization, options = recorder.optimization, recorder.optimization.options
        if not options.steps and not found(recorder.folder):
            recorder.finish()
            return
        if optimization.done:
            recorder.make_up()
            self.report.note(f"{recorder.stage}: all {options.steps} steps are done")
            return
        batches = TrainBatches(
            examples,
            device_of(stage),
            batch_size=options.batch_size,
            seed=seed,
            start=optimization.step * options.accumulate,
            workers=options.workers,
            rank=rank(),
            ranks=ranks(),
        )
        recorder.follow(train_steps(stage, batches, optimization), batches)

    def _cache(self, run: Run, config: RunConfig, model: Model, code_spec: CodeSpec) -> CodeCache:
        """The cache of a run's codes of its data."""
        version = registry.find("dataset", config.dataset.name).version
        dataset = {**config.dataset.values(), **config.prior_dataset}
        return CodeCache(
            run.codes,
            model.autoencoder,
            code_spec,
            (model.checkpoint.weights_hash, dataset, version),
            model.device,
            config.prior_trainer.batch_size,
            config.prior_trainer.workers,
            self.report,
        )

    def _damage(self) -> list[str]:
        """What to know of the autoencoder's checkpoints."""
        notices: list[str] = []
        newest(self.run.autoencoder, notices)
        return notices

    def _rename_stale(self, name: str, checkpoint: Checkpoint) -> None:
        """Keeps a prior over an older autoencoder's codes under another name, and training starts at 0."""
        run = self.run
        trained = newest(run.prior(name), [])
        if trained is None or is_current(trained, checkpoint):
            return
        number = 1 + sum(1 for _ in run.path.glob(f"priors/{name}.old-*"))
        kept = run.prior(f"{name}.old-{number}")
        damaged = damaged_with(run.autoencoder, str(trained.facts.get("autoencoder")))
        run.prior(name).rename(kept)
        run.log.cut(f"prior-{name}", 0)
        other = f"{damaged}, which is damaged" if damaged else "an older autoencoder"
        self.report.note(f"prior={name} was trained on codes of {other}: kept as {kept}, starting again")


def _code_spec_of(model: Model, data: DataSpec) -> CodeSpec:
    """The codes of a prior's examples, which may be longer than the autoencoder's. ToolkitError where they may not."""
    autoencoder = model.autoencoder
    code_spec = code_spec_on(autoencoder.quantizer, encoded_grid(autoencoder.encoder, data, autoencoder.quantizer))
    if data.axes != model.data.axes:
        code_spec.refuse_parts("prior_dataset", f"give it examples of {model.data.axes}, as the autoencoder has")
    return code_spec


def _refuse_collapsed(codes: CachedCodes, code_spec: CodeSpec, quantizer: Quantizer) -> None:
    """ToolkitError where almost no codes are in use: a prior would learn them in no time, and sample noise."""
    counts = torch.zeros(sum(code_spec.codebook_sizes), dtype=torch.double)
    for part in islice(codes.stretches("train"), rank(), None, ranks()):
        counts += histogram(part, code_spec)
    all_reduce_sum(counts)
    warning = collapse.warning(counts, code_spec, quantizer)
    if warning:
        raise ToolkitError(
            f"{warning}\n"
            "no prior is trained, its samples would be noise: prior_trainer.allow_collapsed=true trains one anyway"
        )
