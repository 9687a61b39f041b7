"""``toolkit train``: from a validated configuration to a run folder with both stages trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toolkit import registry
from toolkit.autoencoder import encoded_grid
from toolkit.batches import TrainBatches, split_batches
from toolkit.build import (
    build_autoencoder,
    build_dataset,
    build_metrics,
    build_objective,
    build_options,
    build_prior,
)
from toolkit.checkpoint import Checkpoint, newest
from toolkit.cli.report import TrainReport, show_plugin_notes
from toolkit.codes import CachedCodes, cache_key, encode_batches, read_codes, write_codes
from toolkit.dataset import Dataset
from toolkit.device import choose_device
from toolkit.errors import ToolkitError
from toolkit.evaluate import evaluate
from toolkit.model import Model
from toolkit.optimization import Optimization
from toolkit.prior import Prior
from toolkit.run import Run
from toolkit.sample import sample
from toolkit.spec import LatentSpec
from toolkit.train import PriorStage, Recorder, Report, Stage, train_autoencoder, train_prior

Config = dict[str, Any]
SHOWN = 8
"""Examples in a row of a picture."""


def run(config: Config, folder: Path) -> float | None:
    """Trains what ``stage`` says into the folder, going on from the checkpoints it finds there.

    Everything is built, and so proved to fit, before the first file is written. Returns what a sweep may minimise:
    the last validation's bits per dim or, where there are none, its loss in nats.
    """
    show_plugin_notes()
    where = Run(folder)
    try:
        watch = TrainReport(where, config)
        torch.manual_seed(config["seed"])
        if config["stage"] == "prior" and newest(where.autoencoder, []) is None:
            raise ToolkitError(
                "stage=prior needs a trained autoencoder: toolkit train run=DIR stage=prior, or stage=all for both"
            )
        dataset = build_dataset(config)
        autoencoder = build_autoencoder(config, dataset.spec)
        stage = Stage(build_objective(config, autoencoder), autoencoder)
        dataset.example("train", 0, None)
        if config["stage"] != "autoencoder" and autoencoder.latent.depth:
            with torch.random.fork_rng([]):
                build_prior(config, autoencoder.latent, dataset.spec)
    except (ToolkitError, ValueError):
        _remove_empty(folder)
        raise
    where.write_config(config)
    where.write_spec(dataset.spec, autoencoder.latent)
    where.write_components(components(config, {"dataset": dataset, **_parts(stage)}))
    with watch as report:
        if config["stage"] != "prior":
            _first_stage(where, config, dataset, stage, report)
        if config["stage"] != "autoencoder":
            _second_stage(where, config, report)
    print(folder)
    return _score(where)


def _first_stage(where: Run, config: Config, dataset: Dataset, stage: Stage, report: Report) -> None:
    options = build_options(config["trainer"])
    device = choose_device(options.device)
    if config["init"] and newest(where.autoencoder, []) is None:
        _initialise(stage, config["init"])
    optimization = Optimization(stage.to(device), options)
    spec = dataset.spec
    shown = min(SHOWN, dataset.size("val"))

    def validate() -> dict[str, float]:
        batches = split_batches(dataset, "val", device, batch_size=options.batch_size, limit=options.validate_examples)
        metrics = build_metrics(config, spec, stage.model.latent)
        evaluation = evaluate(stage.objective, stage.model, batches, metrics)
        for warning in evaluation.warnings:
            report.note(warning)
        return {k: v for k, v in evaluation.figures().items() if isinstance(v, float)}

    @torch.inference_mode()
    def draw(path: Path) -> None:
        stage.eval()
        batch = next(split_batches(dataset, "val", device, batch_size=shown))
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
        validate=validate if dataset.size("val") else None,
        draw=draw if shown else None,
    )
    recorder.resume()
    _loop(recorder, dataset, config["seed"], lambda batches: train_autoencoder(stage, batches, optimization))


def _second_stage(where: Run, config: Config, report: Report) -> None:
    options = build_options(config["prior_trainer"])
    model = Model(where, choose_device(options.device))
    dataset = build_dataset(config, config["prior_dataset"])
    grid = encoded_grid(model.autoencoder.encoder, dataset.spec, model.autoencoder.quantizer)
    latent = LatentSpec(grid, model.latent.codebook_sizes)
    torch.manual_seed(config["seed"] + 1)
    prior = build_prior(config, latent, dataset.spec)
    name = config["prior"]["name"]
    where.write_components(components(config, {"prior": prior}))
    if not any(True for _ in prior.parameters()):
        report.note(f"prior={name} has nothing to train")
        return
    codes = _codes(where, config, model, dataset, latent, report)
    stage = PriorStage(prior)
    optimization = Optimization(stage.to(model.device), options)
    folder = Run(where.prior(name))
    _set_stale_aside(where, name, model.checkpoint, report)
    folder.write_config(config)

    @torch.inference_mode()
    def validate() -> dict[str, float]:
        stage.eval()
        losses = [
            stage.model.loss(batch.x, batch.conditions)
            for batch in split_batches(
                codes, "val", model.device, batch_size=options.batch_size, limit=options.validate_examples
            )
        ]
        return {"loss": float(torch.cat(losses).double().mean())}

    def draw(path: Path) -> None:
        _draw_samples(path, model, stage.model, codes, dataset, config["seed"])

    recorder = Recorder(
        where,
        f"prior-{name}",
        folder.path,
        optimization,
        report,
        facts={"autoencoder": model.checkpoint.weights_hash, "grid": list(grid)},
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
    )
    recorder.follow(iter(loop(batches)), batches)


def _codes(
    where: Run, config: Config, model: Model, dataset: Dataset, latent: LatentSpec, report: Report
) -> CachedCodes:
    """The codes of the training and validation splits: from the cache where its key fits, else encoded now."""
    made = {}
    options = build_options(config["prior_trainer"])
    for split in ("train", "val"):
        path = where.codes / f"{split}.safetensors"
        size = dataset.size(split)
        key = cache_key(
            model.checkpoint.weights_hash,
            {**config["dataset"], **config["prior_dataset"]},
            registry.find("dataset", config["dataset"]["name"]).version,
            [split, size],
        )
        if size and not _fresh(path, key, report):
            batches = split_batches(dataset, split, model.device, batch_size=options.batch_size)
            report.begin(f"codes of {split}", 0, size)
            write_codes(path, latent, encode_batches(model.autoencoder, batches), size, {"key": key}, report.step)
        made[split] = read_codes(path)[0] if size else {}
    return CachedCodes(made)


def _fresh(path: Path, key: str, report: Report) -> bool:
    """Whether the cache holds just these codes; a stale or damaged one is never read."""
    if not path.is_file():
        return False
    try:
        held = read_codes(path)[1].get("key")
    except ToolkitError as e:
        report.note(f"{e}: encoding again")
        return False
    if held != key:
        report.note(f"{path} holds codes of other weights or data: encoding again")
    return held == key


def _draw_samples(path: Path, model: Model, prior: Prior, codes: CachedCodes, dataset: Dataset, seed: int) -> None:
    """Two rows of samples, under the conditions of the first validation examples."""
    batch = next(split_batches(codes, "val", model.device, batch_size=2 * SHOWN))
    generator = torch.Generator().manual_seed(seed)
    x, _ = sample(model.autoencoder, prior, len(batch.x), batch.conditions, generator=generator)
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
    other = Run.open(init)
    checkpoint = newest(other.autoencoder, [])
    if checkpoint is None:
        raise ToolkitError(f"init={init}: this run has no checkpoint")
    checkpoint.load_weights(stage, averaged=True)


def _score(where: Run) -> float | None:
    """The last validation's most telling figure."""
    validations = [line for line in where.read_log() if line["split"] == "val"]
    told = validations[-1] if validations else {}
    return next((told[name] for name in ("bits_per_dim", "loss", "nll") if name in told), None)


def _parts(stage: Stage) -> dict[str, Any]:
    model = stage.model
    return {
        "encoder": model.encoder,
        "quantizer": model.quantizer,
        "decoder": model.decoder,
        "likelihood": None,
        "objective": stage.objective,
    }


def components(config: Config, parts: dict[str, Any]) -> Config:
    """Who provided each part, and how many parameters it has."""
    made = {}
    for kind, part in parts.items():
        if not config.get(kind):
            continue
        found = registry.find(kind, config[kind]["name"])
        count = sum(p.numel() for p in part.parameters()) if isinstance(part, nn.Module) else 0
        made[kind] = {
            "name": found.name,
            "distribution": found.distribution,
            "version": found.version,
            "parameters": count,
        }
    return made


def _remove_empty(folder: Path) -> None:
    """Takes back the folders that were made for a run that cannot start."""
    outputs = Path("outputs").resolve()
    own = [path for path in folder.resolve().parents if path == outputs or outputs in path.parents]
    with suppress(OSError):
        for path in (folder, *own):
            path.rmdir()
