"""Stage two of a run: a prior over the codes of its autoencoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from toolkit import collapse
from toolkit.batches import Batch
from toolkit.build import build_prior
from toolkit.dataset import Dataset, Examples, SourceFile
from toolkit.device import choose_device, placed
from toolkit.distributed import (
    all_gather_object,
    all_reduce_sum,
    broadcast_object,
    no_sync,
    on_rank0,
    rank,
    ranks,
    seed_noise,
)
from toolkit.errors import ToolkitError
from toolkit.model import Model
from toolkit.optimization import Optimization
from toolkit.provenance import components
from toolkit.quantizer import Quantizer
from toolkit.report import Report
from toolkit.running_metrics import histogram
from toolkit.runs.best import read_best
from toolkit.runs.checkpoint import Checkpoint, damaged_with, found, newest
from toolkit.runs.chosen import choose
from toolkit.runs.codes import CachedCodes
from toolkit.runs.data import record
from toolkit.runs.folder import Run, write_config
from toolkit.sharding import checkpoint_activations, drop_gathered, shard
from toolkit.spec import CodeSpec
from toolkit.stages.choice import Choice, rule_of_prior
from toolkit.stages.continuation import check_data, is_current
from toolkit.stages.pictures import Shown, plot_samples
from toolkit.stages.recorder import Recorder
from toolkit.stages.refusals import codes_of_prior
from toolkit.stages.staging import Staging
from toolkit.training import PriorStage


def train_prior(staging: Staging, dataset: Dataset, examples: Examples, files: str | None, allowed: bool) -> None:
    """Trains the configured prior over the codes of the run's newest autoencoder.

    ``dataset``: ``data_of_prior``, and ``examples`` what is read of it. ``files`` is a hash of what is known of the
    data's files; ``allowed``: whether the files of ``prior_dataset`` may be others than those of the prior's
    checkpoints. ToolkitError where they are and may not, or the codes have collapsed.
    """
    run, config, report = staging.run, staging.config, staging.report
    options = config.prior_trainer
    model = Model(run, choose_device(options.device))
    name = config.chosen_prior().name
    for notice in on_rank0(partial(_stands_on, run, name)) or []:
        report.note(notice)
    if config.prior_dataset:
        checked = on_rank0(partial(_check_files, run, name, dataset.source_files(), allowed, report))
        files = broadcast_object(checked)
    code_spec = codes_of_prior(model.autoencoder, dataset.spec)
    torch.manual_seed(config.seed + 1)
    prior = build_prior(config, code_spec, dataset.spec)
    seed_noise(config.seed + 1)
    on_rank0(partial(run.write_components, components(config, {"prior": prior})))
    if not any(True for _ in prior.parameters()):
        report.note(f"prior={name} has nothing to train")
        return
    always = options.encode == "always"
    codes = staging.cache(run, config, model, code_spec, files).read(examples, ("val",) if always else ("train", "val"))
    if not options.allow_collapsed:
        if always and not codes.size("val"):
            report.note("without validation examples nobody asks whether their codes have collapsed")
        _refuse_collapsed(codes, "val" if always else "train", code_spec, model.autoencoder.quantizer)
    stage, sharded = PriorStage(prior), config.trainer.shard and ranks() > 1
    if config.trainer.checkpoint_activations:
        checkpoint_activations(prior)
    if sharded:
        shard(prior, model.device, options.precision)
        report.note(f"prior={name} is sharded over {ranks()} ranks; no samples are plotted while it trains")
    elif config.trainer.shard:
        report.note(f"prior={name} is not sharded: there is one rank (trainer.ranks=N starts more)")
    optimization = Optimization(stage if sharded else placed(stage, model.device), options)
    on_rank0(partial(_rename_stale, run, name, model.checkpoint, report))
    on_rank0(partial(write_config, run.prior(name), config))
    if config.prior_dataset:
        on_rank0(partial(_write_files, run, name, dataset))

    def share() -> Iterator[tuple[Batch, bool]]:
        """This rank's part of the validation, with whether it counts."""
        if sharded:
            return staging.in_step(codes, "val", options)
        return ((batch, True) for batch in staging.share(codes, "val", options))

    @torch.no_grad()
    def validate() -> dict[str, float]:
        stage.eval()
        measured = ((stage.losses(batch.x, batch.conditions, batch.mask).cpu(), counts) for batch, counts in share())
        with no_sync(stage, defer=False):
            own = [loss for loss, counts in measured if counts]
        drop_gathered(prior)
        losses = [loss for losses in all_gather_object(own) for loss in losses]
        return {"loss": float(torch.cat(losses).double().mean())}

    def plot(path: Path) -> Shown:
        title = f"{run.title}: samples of prior {name}, step {optimization.step}, seed {config.seed}"
        return plot_samples(path, model, stage.model, codes, dataset, config.seed, title)

    axes = {"grid": list(code_spec.grid), "axes": list(dataset.spec.axes)}
    recorder = Recorder(
        run,
        f"prior-{name}",
        run.prior(name),
        optimization,
        report,
        Choice(f"prior-{name}", run.prior(name), rule_of_prior(options), options, "prior_trainer"),
        facts={"autoencoder": model.checkpoint.weights_hash, **axes},
        validate=validate if codes.size("val") else None,
        plot=staging.pictured(f"prior-{name}", optimization, plot) if codes.size("val") and not sharded else None,
        saved=report.checkpoint,
        whole=options.checkpoints == "whole",
    )
    recorder.resume()
    if always:
        staging.loop(recorder, stage, examples, config.seed + 1, encoded_by=model.autoencoder)
    else:
        staging.loop(recorder, stage, codes, config.seed + 1)


def _stands_on(run: Run, name: str) -> list[str]:
    """What to know of the autoencoder's checkpoints, and, where it could be another, whose codes are modeled."""
    notices: list[str] = []
    checkpoint, best = choose(run.autoencoder, None, notices), read_best(run.autoencoder)
    if checkpoint is not None and best is not None:
        which = f"its best ({best})" if checkpoint.step == best.step else "its last"
        notices.append(f"prior={name}: over the codes of {checkpoint.path.relative_to(run.path)}, {which}")
    return notices


def _check_files(run: Run, name: str, files: Iterable[SourceFile], allowed: bool, report: Report) -> str | None:
    """A hash of what is known of the files of ``prior_dataset``, once they are compared with the prior's."""
    now = record(files)
    if found(run.prior(name)):
        for notice in check_data(run.prior(name), now, allowed):
            report.note(notice)
    return now.digest if now else None


def _write_files(run: Run, name: str, dataset: Dataset) -> None:
    if now := record(dataset.source_files()):
        now.write(run.prior(name))


def _rename_stale(run: Run, name: str, checkpoint: Checkpoint, report: Report) -> None:
    """Keeps a prior over an older autoencoder's codes under another name, and training starts at 0."""
    trained = newest(run.prior(name), [])
    if trained is None or is_current(trained, checkpoint):
        return
    number = 1 + sum(1 for _ in run.path.glob(f"priors/{name}.old-*"))
    kept = run.prior(f"{name}.old-{number}")
    damaged = damaged_with(run.autoencoder, str(trained.facts.get("autoencoder")))
    run.prior(name).rename(kept)
    run.log.cut(f"prior-{name}", 0)
    other = f"{damaged}, which is damaged" if damaged else "an older autoencoder"
    report.note(f"prior={name} was trained on codes of {other}: kept as {kept}, starting again")


def _refuse_collapsed(codes: CachedCodes, split: str, code_spec: CodeSpec, quantizer: Quantizer) -> None:
    """ToolkitError where almost no codes are in use: a prior would learn them in no time, and sample noise."""
    if not codes.size(split):
        return
    counts = torch.zeros(sum(code_spec.codebook_sizes), dtype=torch.double)
    for part in islice(codes.stretches(split), rank(), None, ranks()):
        counts += histogram(part, code_spec)
    all_reduce_sum(counts)
    warning = collapse.warning(counts, code_spec, quantizer)
    if warning:
        raise ToolkitError(
            f"{warning}\n"
            "no prior is trained, its samples would be noise: prior_trainer.allow_collapsed=true trains one anyway"
        )
