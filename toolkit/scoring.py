"""How good a run is: its metrics over a split, and the one number that a search minimizes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any, NamedTuple

from toolkit import registry
from toolkit.batches import split_batches
from toolkit.build import build_metrics
from toolkit.config import PartConfig, RunConfig
from toolkit.continuation import changed_data
from toolkit.dataset import Dataset
from toolkit.errors import ToolkitError
from toolkit.evaluation import evaluate_parts
from toolkit.metric import Metric
from toolkit.model import Model, load
from toolkit.prior import Prior
from toolkit.runs.checkpoint import found
from toolkit.runs.folder import Run
from toolkit.spec import DataSpec
from toolkit.writing import write_text


class Measured(NamedTuple):
    """The metrics of a run."""

    metrics: dict[str, Any]
    """By name, as ``evaluation.json`` holds them; ``priors`` has a row for each prior."""
    notices: list[str]
    """What the user should know about them."""


def evaluate(
    run: str | Path | Model,
    *,
    split: str = "test",
    examples: int | None = None,
    metrics: Sequence[str] = (),
    batch_size: int = 64,
    workers: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Bits per dim of a run with both terms apart, a row per trained prior, and every metric, over a split.

    The same is written to the run's ``evaluation.json``. ``examples``: how many of the split's, and of those that a
    metric is fitted to (None: all). ``metrics``: by name, in place of the run's own. ``workers``: processes that read
    the data (None: as many as suit the device). ``device`` is where a run given by its folder is opened. Raises
    ToolkitError where the run or its dataset cannot be opened or the split is empty.
    """
    model = run if isinstance(run, Model) else load(run, device)
    judges = build_metrics(with_metrics(model.config, metrics), model.autoencoder)
    return measure(model, model.dataset, judges, split, examples, batch_size, workers).metrics


def measure(
    model: Model,
    dataset: Dataset,
    metrics: list[Metric],
    split: str,
    examples: int | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Measured:
    """The same, for an opened run with its dataset and metrics."""
    total = example_count(dataset, split, examples)
    batches, training = (
        split_batches(dataset, of, model.device, batch_size=batch_size, limit=limit, workers=workers)
        for of, limit in ((split, total), ("train", examples))
    )
    evaluation = evaluate_parts(
        model.objective, model.autoencoder, batches, metrics, model.priors, training=training, progress=progress
    )
    density = "the likelihood is a density, which has no bits per dim"
    trained = {"step": model.checkpoint.step, "prior_steps": prior_steps(model.run)}
    values = {"split": split, **trained, **evaluation.metrics_by_name()}
    path, notices = model.run.results / "evaluation.json", [density] if evaluation.density else []
    if beyond := model.objective.beyond:
        notices.append(
            f"trained for {' and '.join(beyond)} beside its bound: nll and bits are what the likelihood costs, which is"
            " more than if it had been trained for them alone, and they do not say how its reconstructions look"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(values, indent=1))
    except OSError as e:  # what was measured is worth more than the file
        notices.append(f"{path} could not be written: {e.strerror or e}")
    return Measured(values, [*model.notices, *evaluation.warnings, *notices, *changed_data(model.run, dataset)])


def example_count(dataset: Dataset, split: str, limit: int | None = None) -> int:
    """How many examples of a split are evaluated; ToolkitError for none."""
    size = dataset.size(split)
    total = size if limit is None else min(size, limit)
    if not total:
        raise ToolkitError(f"split={split} has no examples to evaluate")
    return total


def prior_steps(run: Run) -> dict[str, int]:
    """The newest checkpoint's step of each prior."""
    return {name: int(found(run.prior(name))[-1].name[5:]) for name in run.priors()}


def with_metrics(config: RunConfig, names: Sequence[str]) -> RunConfig:
    """The configuration with other metrics, if any are named, with the options it has for them."""
    if not names:
        return config
    return replace(config, metric={name: config.metric.get(name, PartConfig(name, {})) for name in names})


def validation_score(run: Run, data: DataSpec, config: RunConfig) -> float | None:
    """Bits per dim, or nats of a density, of the last validation: what a search minimizes.

    With the prior's code bits if it was trained last and has a tractable probability. None without validation.
    """
    autoencoder = last = None
    for line in run.log:
        if line["split"] == "val":
            last = line
            autoencoder = line if line["stage"] == "autoencoder" and "nll" in line else autoencoder
    if autoencoder is None or last is None:
        return None
    if last is autoencoder or "loss" not in last or not _is_tractable(config):
        return float(autoencoder.get("bits_per_dim", autoencoder["nll"]))
    nats = _with_prior(autoencoder, last)
    return nats / (data.dims * log(2)) if "bits_per_dim" in autoencoder else nats


def _is_tractable(config: RunConfig) -> bool:
    prior: type[Prior] = registry.load("prior", config.chosen_prior().name)
    return prior.tractable


def _with_prior(autoencoder: Mapping[str, Any], prior: Mapping[str, Any]) -> float:
    return float(autoencoder["nll"] + prior["loss"] - autoencoder.get("posterior_entropy", 0.0))
