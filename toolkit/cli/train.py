"""``toolkit train``: from a validated configuration to a run folder with both stages trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from math import log
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from torch import Tensor, nn

from toolkit import collapse, registry
from toolkit.autoencoder import encoded_grid
from toolkit.batches import Examples, TrainBatches, split_batches
from toolkit.build import (
    asks_for_source,
    build_metrics,
    build_options,
    build_prior,
)
from toolkit.checkpoint import Checkpoint, newest
from toolkit.cli.report import Silence, TrainReport, show_plugin_notes
from toolkit.codes import CachedCodes, cache_key, check_codes, encode_batches, read_codes, write_codes
from toolkit.dataset import Dataset
from toolkit.device import choose_device
from toolkit.distributed import agreed, check_device, first, rank, ranks, seed_noise
from toolkit.errors import ToolkitError
from toolkit.evaluate import evaluate
from toolkit.figures import histogram
from toolkit.model import Model, build_prior_stage, build_stage, load, open_dataset
from toolkit.optimization import Optimization
from toolkit.prior import Controls, Prior
from toolkit.quantizer import Quantizer
from toolkit.run import Run, write_config
from toolkit.sample import sample
from toolkit.schema import signature
from toolkit.spec import DataSpec, LatentSpec
from toolkit.train import PriorStage, Recorder, Report, Stage, train_autoencoder, train_prior

Config = dict[str, Any]
SHOWN = 8
"""Examples in a row of a picture."""


def run(config: Config, folder: Path) -> float | None:
    """Trains what ``stage`` says into the folder, going on from the checkpoints it finds there.

    Everything is built, and so proved to fit, together and with what the folder holds, before a file is written.
    Returns what a sweep may minimise: bits per dim or, for a density, nats, of the last validation.
    """
    leads = rank() == 0
    if leads:
        show_plugin_notes()
    where = Run(folder)
    try:
        with agreed():
            watch = TrainReport(where, config) if leads else Silence()
            torch.manual_seed(config["seed"])
            dataset = open_dataset(config, base=where.base)
            held = newest(where.autoencoder, [])
            stage = build_stage(config, dataset.spec, held)
            autoencoder = stage.model
            build_metrics(config, autoencoder)
            dataset.example("train", 0, None)
            for trainer in ("trainer", "prior_trainer"):
                check_device(choose_device(config[trainer]["device"]))
            with torch.random.fork_rng([]):
                _prove_continuation(where, config, dataset.spec, stage)
            if config["init"] and held is None:
                _initialise(stage, config["init"])
    except Exception:
        _remove_empty(folder)
        raise
    seed_noise(config["seed"])
    first(partial(_write, where, config, dataset, stage))
    with watch as report:
        try:
            examples = _base_codes(where, config, report) if asks_for_source(config) else dataset
            if config["stage"] != "prior":
                _first_stage(where, config, dataset, examples, stage, report)
            if config["stage"] != "autoencoder" and not autoencoder.latent.depth:
                report.note("the bottleneck is continuous: samples are drawn from the unit normal, no prior is trained")
            elif config["stage"] != "autoencoder":
                _second_stage(where, config, dataset, examples, report)
        except KeyboardInterrupt:
            report.note(f"stopped; toolkit train run={quote(str(folder))} goes on from the last checkpoint")
            raise
    if leads:
        print(folder)
    return _score(where, dataset.spec, config)


def _write(where: Run, config: Config, dataset: Dataset, stage: Stage) -> None:
    """What a run says about itself."""
    write_config(where.path, config)
    if asks_for_source(config) and not where.base.is_dir():
        where.copy_base(Run.open(config["dataset"]["run"]))
    where.write_spec(dataset.spec, stage.model.latent)
    made = components(config, {"dataset": dataset, **_parts(stage)})
    where.write_components({**made, **metric_components(config)})


def _prove_continuation(where: Run, config: Config, data: DataSpec, stage: Stage) -> None:
    """ToolkitError where the folder's checkpoints are of another model than the configuration's."""
    held = newest(where.autoencoder, [])
    if held is None and config["stage"] == "prior":
        raise ToolkitError(
            "stage=prior needs a trained autoencoder: toolkit train run=DIR stage=prior, or stage=all for both"
        )
    if held is not None:
        then = where.spec()[0]
        if (then.shape, then.levels, then.conditions) != (data.shape, data.levels, data.conditions):
            raise ToolkitError(
                f"{where.path} was trained on data {then.shape} with {then.levels} levels, this is {data.shape} with"
                f" {data.levels}: start a new run for other data"
            )
        held.check_weights(stage)
    if config["stage"] == "autoencoder" or (config["stage"] == "all" and not stage.model.latent.depth):
        return
    trained = newest(where.prior(config["prior"]["name"]), [])
    goes_on = held is not None and trained is not None and trained.facts.get("autoencoder") == held.weights_hash
    build_prior_stage(config, stage.model.latent, data, trained if goes_on else None)


def _base_codes(where: Run, config: Config, report: Report) -> CachedCodes:
    """The data of a run over another's codes, encoded once and kept in its copy of that one."""
    base = load(where.base, build_options(config, "trainer").device)
    plain = {**base.config, "prior_dataset": {}}
    return _codes(base.run, plain, base, base.dataset, base.latent, report)


def _first_stage(
    where: Run, config: Config, dataset: Dataset, examples: Examples, stage: Stage, report: Report
) -> None:
    options = build_options(config, "trainer")
    device = choose_device(options.device)
    optimization = Optimization(stage.to(device), options)
    spec = dataset.spec
    shown = min(SHOWN, examples.size("val"))
    told = set[str]()

    def validate() -> dict[str, float]:
        limit = options.validate_examples
        batches = split_batches(examples, "val", device, batch_size=options.batch_size, limit=limit, workers=0)
        training = split_batches(examples, "train", device, batch_size=options.batch_size, limit=limit, workers=0)
        metrics = build_metrics(config, stage.model)
        evaluation = evaluate(stage.objective, stage.model, batches, metrics, training=training)
        for warning in evaluation.warnings:
            subject = warning.partition(":")[0]
            if subject not in told:
                report.note(warning)
            told.add(subject)
        return {k: v for k, v in evaluation.figures().items() if isinstance(v, float)}

    @torch.no_grad()
    def draw(path: Path) -> None:
        stage.eval()
        batch = next(split_batches(examples, "val", device, batch_size=shown, limit=shown, workers=0))
        bound = stage.objective.bound(stage.model, batch.x, batch.conditions)
        mean = bound.likelihood.mean
        made = bound.likelihood.sample() if mean is None else spec.unscale(mean)
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset.draw([batch.x.cpu(), made.cpu()], spec, path)

    recorder = Recorder(
        where,
        "autoencoder",
        where.autoencoder,
        optimization,
        report,
        validate=validate if examples.size("val") else None,
        draw=draw if shown else None,
    )
    recorder.resume()
    _loop(recorder, examples, config["seed"], lambda batches: train_autoencoder(stage, batches, optimization))


def _second_stage(where: Run, config: Config, dataset: Dataset, examples: Examples, report: Report) -> None:
    options = build_options(config, "prior_trainer")
    model = Model(where, choose_device(options.device))
    if config["prior_dataset"]:
        dataset = examples = open_dataset(config, config["prior_dataset"], where.base)
    grid = encoded_grid(model.autoencoder.encoder, dataset.spec, model.autoencoder.quantizer)
    latent = LatentSpec(grid, model.latent.codebook_sizes)
    torch.manual_seed(config["seed"] + 1)
    prior = build_prior(config, latent, dataset.spec)
    seed_noise(config["seed"] + 1)
    name = config["prior"]["name"]
    first(partial(where.write_components, components(config, {"prior": prior})))
    if not any(True for _ in prior.parameters()):
        report.note(f"prior={name} has nothing to train")
        return
    codes = _codes(where, config, model, examples, latent, report)
    first(partial(_judge, codes, latent, model.autoencoder.quantizer, config))
    stage = PriorStage(prior)
    optimization = Optimization(stage.to(model.device), options)
    folder = where.prior(name)
    first(partial(_set_stale_aside, where, name, model.checkpoint, report))
    first(partial(write_config, folder, config))

    @torch.no_grad()
    def validate() -> dict[str, float]:
        stage.eval()
        limit = options.validate_examples
        batches = split_batches(codes, "val", model.device, batch_size=options.batch_size, limit=limit, workers=0)
        losses = [stage.model.loss(batch.x, batch.conditions) for batch in batches]
        return {"loss": float(torch.cat(losses).double().mean())}

    def draw(path: Path) -> None:
        _draw_samples(path, model, stage.model, codes, dataset, config["seed"])

    recorder = Recorder(
        where,
        f"prior-{name}",
        folder,
        optimization,
        report,
        facts={"autoencoder": model.checkpoint.weights_hash, "grid": list(grid), "axes": list(dataset.spec.axes)},
        validate=validate if codes.size("val") else None,
        draw=draw if codes.size("val") else None,
    )
    recorder.resume()
    _loop(recorder, codes, config["seed"] + 1, lambda batches: train_prior(stage, batches, optimization))


def _loop(
    recorder: Recorder, examples: Any, seed: int, loop: Callable[[TrainBatches], Iterable[dict[str, Tensor]]]
) -> None:
    """Batches from where the checkpoint stopped, through a loop, to the recorder."""
    optimization, options = recorder.optimization, recorder.optimization.options
    if optimization.done:
        recorder.report.note(f"{recorder.stage}: all {options.steps} steps are done")
        return
    batches = TrainBatches(
        examples,
        next(optimization.module.parameters()).device,
        batch_size=options.batch_size,
        seed=seed,
        start=optimization.step * options.accumulate,
        workers=options.workers,
        rank=rank(),
        ranks=ranks(),
    )
    recorder.follow(iter(loop(batches)), batches)


def _codes(
    where: Run, config: Config, model: Model, examples: Examples, latent: LatentSpec, report: Report
) -> CachedCodes:
    """The codes of the training and validation splits: from the cache where its key fits, else encoded now."""
    made = {}
    for split in (split for split in ("train", "val") if examples.size(split)):
        path = where.codes / f"{split}.safetensors"
        first(partial(_encode, path, split, config, model, examples, latent, report))
        made[split] = read_codes(path)[0]
    return CachedCodes(made)


def _encode(
    path: Path, split: str, config: Config, model: Model, examples: Examples, latent: LatentSpec, report: Report
) -> None:
    options, size = build_options(config, "prior_trainer"), examples.size(split)
    key = cache_key(
        model.checkpoint.weights_hash,
        {**config["dataset"], **config["prior_dataset"]},
        registry.find("dataset", config["dataset"]["name"]).version,
        [split, size],
    )
    if _fresh(path, key, latent, size, report):
        return
    batches = split_batches(examples, split, model.device, batch_size=options.batch_size, workers=options.workers)
    report.begin(f"codes of {split}", 0, size)
    write_codes(path, latent, encode_batches(model.autoencoder, batches), size, {"key": key}, report.step)


def _judge(codes: CachedCodes, latent: LatentSpec, quantizer: Quantizer, config: Config) -> None:
    """ToolkitError where almost none of the codes are used: a prior would learn them in no time, and sample noise."""
    if config["prior_trainer"]["allow_collapsed"]:
        return
    counts = torch.zeros(sum(latent.codebook_sizes), dtype=torch.double)
    for part in codes.stretches("train"):
        counts += histogram(part, latent)
    warning = collapse.warning(counts, latent, quantizer)
    if warning:
        raise ToolkitError(
            f"{warning}\n"
            "no prior is trained, its samples would be noise: prior_trainer.allow_collapsed=true trains one anyway"
        )


def _fresh(path: Path, key: str, latent: LatentSpec, size: int, report: Report) -> bool:
    """Whether the cache holds just these codes; a stale or damaged one is never read."""
    if not path.is_file():
        return False
    try:
        arrays, metadata = read_codes(path)
        held = metadata.get("key")
    except ToolkitError as e:
        report.note(f"{e}: encoding again")
        return False
    if held != key:
        report.note(f"{path} holds codes of other weights or data: encoding again")
        return False
    try:
        check_codes(arrays, latent, size)
    except ValueError as e:
        report.note(f"{path}: {e}: encoding again")
        return False
    return True


def _draw_samples(path: Path, model: Model, prior: Prior, codes: CachedCodes, dataset: Dataset, seed: int) -> None:
    """Two rows of samples, under the conditions of the first validation examples."""
    batch = next(split_batches(codes, "val", model.device, batch_size=2 * SHOWN, limit=2 * SHOWN, workers=0))
    generator = torch.Generator().manual_seed(seed)
    x, _ = sample(model.autoencoder, prior, len(batch.x), batch.conditions, Controls(), generator=generator)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.draw(x.cpu().split(SHOWN), dataset.spec, path)


def _set_stale_aside(where: Run, name: str, checkpoint: Checkpoint, report: Report) -> None:
    """A prior of an older autoencoder's codes is kept under another name, and training starts at 0."""
    held = newest(where.prior(name), [])
    if held is None or held.facts.get("autoencoder") == checkpoint.weights_hash:
        return
    number = 1 + sum(1 for _ in where.path.glob(f"priors/{name}.old-*"))
    aside = where.prior(f"{name}.old-{number}")
    where.prior(name).rename(aside)
    where.cut_log(f"prior-{name}", 0)
    report.note(f"prior={name} was trained on codes of an older autoencoder: kept as {aside}, starting again")


def _initialise(stage: Stage, init: str) -> None:
    try:
        other = Run.open(init)
    except ToolkitError as e:
        raise ToolkitError(str(e).replace("run=", "init=", 1)) from e
    checkpoint = newest(other.autoencoder, [])
    if checkpoint is None:
        raise ToolkitError(f"init={init}: this run has no checkpoint")
    checkpoint.load_weights(stage, averaged=True)


def _score(where: Run, data: DataSpec, config: Config) -> float | None:
    """Bits per dim, or nats of a density, of the last validation: with the prior's code bits if it was trained last and
    can tell them."""
    first = last = None
    for line in where.lines():
        if line["split"] == "val":
            last = line
            first = line if line["stage"] == "autoencoder" and "nll" in line else first
    if first is None or last is None:
        return None
    prior: type[Prior] = registry.load("prior", config["prior"]["name"])
    if last is first or "loss" not in last or not prior.tractable:
        return float(first.get("bits_per_dim", first["nll"]))
    nats = float(first["nll"] + last["loss"] - first.get("posterior_entropy", 0.0))
    return nats / (data.dims * log(2)) if "bits_per_dim" in first else nats


def _parts(stage: Stage) -> dict[str, Any]:
    model = stage.model
    return {
        "encoder": model.encoder,
        "quantizer": model.quantizer,
        "decoder": model.decoder,
        "likelihood": getattr(model.decoder, "likelihood", None),
        "objective": stage.objective,
    }


def components(config: Config, parts: dict[str, Any]) -> Config:
    """Who provided each part, and how many parameters it has; those inside a part, and metrics, by dotted keys."""
    made = {}
    for kind, part in parts.items():
        if config.get(kind):
            count = sum(p.numel() for p in part.parameters()) if isinstance(part, nn.Module) else 0
            made[kind] = {**_provided(kind, config[kind]), "parameters": count}
            made |= {key: _provided(*inner) for key, inner in _nested(kind, kind, config[kind])}
    return made


def metric_components(config: Config) -> Config:
    """Who provided each metric."""
    return {f"metric.{name}": _provided("metric", node) for name, node in (config.get("metric") or {}).items()}


def _provided(kind: str, node: Config) -> dict[str, Any]:
    found = registry.find(kind, node["name"])
    return {"name": found.name, "distribution": found.distribution, "version": found.version}


def _nested(path: str, kind: str, node: Config) -> Iterator[tuple[str, tuple[str, Config]]]:
    """The parts inside a part, at any depth."""
    for option in signature(kind, node["name"]).options:
        if option.nested and node.get(option.name):
            key, inner = f"{path}.{option.name}", node[option.name]
            yield key, (option.nested, inner)
            yield from _nested(key, option.nested, inner)


def _remove_empty(folder: Path) -> None:
    """Takes back the folders that were made for a run that cannot start."""
    outputs = Path("outputs").resolve()
    own = [path for path in folder.resolve().parents if path == outputs or outputs in path.parents]
    with suppress(OSError):
        for path in (folder, *own):
            path.rmdir()
