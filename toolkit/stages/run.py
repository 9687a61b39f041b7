"""A two-stage run from a checked configuration: what ``toolkit train`` and ``toolkit.train`` both call."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from toolkit import hub
from toolkit.build import asks_for_source, build_loggers, build_metrics, build_stage
from toolkit.config import RunConfig
from toolkit.dataset import Dataset, Examples, check_first
from toolkit.device import choose_device, placed
from toolkit.distributed import (
    broadcast_object,
    collective_timeout,
    on_rank0,
    raise_together,
    rank,
    ranks,
    seed_noise,
)
from toolkit.errors import ToolkitError
from toolkit.evaluation import can_share, evaluate_parts
from toolkit.interrupts import keyboard
from toolkit.logged import Logged
from toolkit.model import load, open_dataset
from toolkit.optimization import Optimization
from toolkit.paths import with_absolute_paths
from toolkit.provenance import components, list_components
from toolkit.report import Lines, LogFile, Report, Silence
from toolkit.runs.checkpoint import newest
from toolkit.runs.codes import CachedCodes
from toolkit.runs.data import DataRecord, record
from toolkit.runs.folder import Run, write_config
from toolkit.runs.lock import training_lock
from toolkit.scoring import validation_score
from toolkit.stages.choice import Choice, rule_of_autoencoder
from toolkit.stages.continuation import check_continuation, check_data
from toolkit.stages.initialization import initialize
from toolkit.stages.pictures import SHOWN, Shown, plot_reconstructions
from toolkit.stages.recorder import Recorder
from toolkit.stages.refusals import check_machine, check_run, data_of_prior
from toolkit.stages.second import train_prior
from toolkit.stages.staging import Staging
from toolkit.training import Stage


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
    config = config.noted()
    hub.refuse_training(folder)
    run, progress = Run(Path(folder)), (report or Lines()) if rank() == 0 else Silence()
    with keyboard(), collective_timeout(config.trainer.timeout), ExitStack() as lock, LogFile(progress) as log:
        on_rank0(lambda: lock.enter_context(training_lock(run.path)))
        with Logged(log) as report:
            return _train(config, run, log, report)


def _train(config: RunConfig, run: Run, log: LogFile, report: Logged) -> float | None:
    with raise_together():
        torch.manual_seed(config.seed)
        dataset = open_dataset(config, base=run.base)
        config = _completed(config, dataset)
        checkpoint = newest(run.autoencoder, [])
        stage = build_stage(config, dataset.spec, checkpoint)
        check_run(config, dataset, stage)
        check_first(dataset)
        check_machine(config)
        files = record(dataset.source_files()) if rank() == 0 else None
        with torch.random.fork_rng([]):
            read = data_of_prior(config, dataset, stage.model.code_spec, run.base)
            notices = check_continuation(run, config, dataset, read, stage, files)
        if asks_for_source(config) and not run.base.is_dir():
            below = Run.open(config.dataset.options["run"], key="dataset.run")
            notices += check_data(below.path, files, config.trainer.allow_changed_data)
        notices += run.edited()
        if config.init and checkpoint is None:
            notices += initialize(stage, config.init, config.trainer.freeze)
    allowed = config.trainer.allow_changed_data  # by this command alone: it is not saved
    config = with_absolute_paths(replace(config, trainer=replace(config.trainer, allow_changed_data=False)))
    on_rank0(lambda: report.add(build_loggers(config, run.path)))
    seed_noise(config.seed)
    notices += on_rank0(partial(_write, run, config, dataset, stage, files)) or []
    for notice in notices:
        report.note(notice)
    if rank() == 0:
        log.open(run.path / "log.txt")
    digest = broadcast_object(files.digest if files else None)
    _Training(Staging(run, config, report), digest, allowed).stages(dataset, read, stage)
    return validation_score(run, dataset.spec, config)


def _completed(config: RunConfig, dataset: Dataset) -> RunConfig:
    """The configuration with what only the data says."""
    options = {**config.dataset.options, **dataset.found_options()}
    return replace(config, dataset=replace(config.dataset, options=options))


def _check_ranks(config: RunConfig) -> None:
    if config.trainer.ranks not in (1, ranks()):
        raise ToolkitError(
            f"trainer.ranks={config.trainer.ranks}: this process is one of {ranks()}; `toolkit train` starts the"
            " others, or torchrun does"
        )


def _write(run: Run, config: RunConfig, dataset: Dataset, stage: Stage, files: DataRecord | None) -> list[str]:
    """Writes the configuration, the specs, what is known of the data's files, and who provided the parts.

    Returns what to know of a base's checkpoints.
    """
    write_config(run.path, config)
    if files is not None:
        files.write(run.path)
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
    """Both stages of a run."""

    staging: Staging
    files: str | None
    """A hash of what is known of the data's files."""
    allowed: bool
    """Whether they may be others than those of the checkpoints."""

    def stages(self, dataset: Dataset, read: Dataset | None, stage: Stage) -> None:
        """Trains one after the other, as far as ``config.stage`` says; ``read``: ``data_of_prior``."""
        config = self.staging.config
        examples: Examples = self._base_codes() if asks_for_source(config) else dataset
        if config.stage != "prior":
            self._train_autoencoder(dataset, examples, stage)
        if config.stage == "autoencoder":
            return
        if read is None:
            self.staging.report.note(
                "the bottleneck is continuous: samples come from the unit normal, no prior is trained"
            )
            return
        train_prior(self.staging, read, read if config.prior_dataset else examples, self.files, self.allowed)

    def _base_codes(self) -> CachedCodes:
        """The data of a run over another run's codes, encoded once and cached in its copy of that run."""
        base = load(self.staging.run.base, self.staging.config.trainer.device)
        config = replace(base.config, prior_dataset={})
        return self.staging.cache(base.run, config, base, base.code_spec, self.files).read(base.dataset)

    def _train_autoencoder(self, dataset: Dataset, examples: Examples, stage: Stage) -> None:
        run, config, report = self.staging.run, self.staging.config, self.staging.report
        options = config.trainer
        device = choose_device(options.device)
        optimization = Optimization(placed(stage, device), options, stage.groups(options))
        shown = min(SHOWN, examples.size("val"))
        noted = set[str]()
        rule = rule_of_autoencoder(options, build_metrics(config, stage.model)) if options.best else None

        def validate() -> dict[str, float]:
            metrics = build_metrics(config, stage.model)
            shared = can_share(metrics)
            batches, training = (self.staging.share(examples, split, options, shared) for split in ("val", "train"))
            evaluation = evaluate_parts(
                stage.objective, stage.model, batches, metrics, training=training, shared=shared
            )
            for warning in evaluation.warnings:
                subject = warning.partition(":")[0]
                if subject not in noted:
                    report.note(f"note: at step {optimization.step:,} {warning}")
                noted.add(subject)
            if rank() == 0:
                counts = {name: bins for metric in metrics for name, bins in metric.histograms().items()}
                report.histograms("autoencoder", optimization.step, counts)
            return {k: v for k, v in evaluation.metrics_by_name().items() if isinstance(v, float)}

        def plot(path: Path) -> Shown:
            title = f"{run.title}: autoencoder, step {optimization.step}"
            return plot_reconstructions(path, stage, examples, dataset, device, shown, title)

        recorder = Recorder(
            run,
            "autoencoder",
            run.autoencoder,
            optimization,
            report,
            Choice("autoencoder", run.autoencoder, rule, options, "trainer"),
            validate=validate if examples.size("val") else None,
            plot=self.staging.pictured("autoencoder", optimization, plot) if shown else None,
            saved=report.checkpoint,
        )
        recorder.resume()
        self.staging.loop(recorder, stage, examples, config.seed)
