"""How good a run is: its metrics over a split, and the one number that a search minimizes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from typing import Any, NamedTuple

import torch

from toolkit import registry
from toolkit.batches import Batch, split_batches
from toolkit.build import build_metrics
from toolkit.config import PartConfig, RunConfig
from toolkit.dataset import Dataset
from toolkit.errors import ToolkitError
from toolkit.evaluation import evaluate_parts
from toolkit.lengths.checks import check_stage
from toolkit.lengths.known import by_length, lengths_of
from toolkit.metric import Metric, judges_samples
from toolkit.model import Model, load
from toolkit.notebook import Figures
from toolkit.prior import Prior, SamplingOptions
from toolkit.runs.best import read_best
from toolkit.runs.chosen import chosen_step
from toolkit.runs.folder import Run
from toolkit.sample import sample
from toolkit.spec import DataSpec
from toolkit.stages.continuation import changed_data
from toolkit.writing import write_text


class Measured(NamedTuple):
    """The metrics of a run."""

    metrics: dict[str, Any]
    """By name, as ``evaluation.json`` holds them; ``priors`` has a row for each prior."""
    notices: list[str]
    """What the user should know about them."""


@dataclass(frozen=True)
class Samples:
    """What is drawn for the metrics that judge samples."""

    n: int
    prior: str | None = None
    """By name; None: the run's own."""
    seed: int = 0
    progress: Callable[[int], None] = lambda _: None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ToolkitError(f"samples={self.n}: give how many to draw, at least 1")


def evaluate(
    run: str | Path | Model,
    *,
    split: str = "test",
    examples: int | None = None,
    metrics: Sequence[str] = (),
    batch_size: int = 64,
    workers: int | None = None,
    device: str = "auto",
    samples: int = 0,
    prior: str | None = None,
    checkpoint: str | int | None = None,
    prior_checkpoint: str | int | None = None,
) -> dict[str, Any]:
    """Bits per dim of a run with both terms apart, a row per trained prior, and every metric, over a split.

    The same is written to the run's ``evaluation.json``. ``examples``: how many of the split's, and of those that a
    metric is fitted to (None: all). ``metrics``: by name, in place of the run's own. ``workers``: processes that read
    the data (None: as many as suit the device). ``device`` is where a run given by its folder is opened, ``checkpoint``
    and ``prior_checkpoint`` at which of its checkpoints (see ``toolkit.load``). ``samples``: how many a prior, by
    default the run's own, draws for the metrics that judge samples; their conditions are the split's. Raises
    ToolkitError where the run or its dataset cannot be opened, the split is empty, or samples are asked for that no
    prior can draw or no metric judges.
    """
    model = (
        run if isinstance(run, Model) else load(run, device, checkpoint=checkpoint, prior_checkpoint=prior_checkpoint)
    )
    judges = build_metrics(with_metrics(model.config, metrics), model.autoencoder)
    drawing = Samples(samples, prior) if samples else None
    return Figures(measure(model, model.dataset, judges, split, examples, batch_size, workers, samples=drawing).metrics)


def measure(
    model: Model,
    dataset: Dataset,
    metrics: list[Metric],
    split: str,
    examples: int | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
    samples: Samples | None = None,
) -> Measured:
    """The same, for an opened run with its dataset and metrics."""
    total = example_count(dataset, split, examples)
    check_stage(dataset, model.objective, model.autoencoder)
    drawn = None if samples is None else draw(model, dataset, split, total, metrics, samples, batch_size)
    batches, training = (
        split_batches(
            dataset,
            of,
            model.device,
            batch_size=batch_size,
            limit=limit,
            workers=workers,
            places=_places(dataset, of, limit),
        )
        for of, limit in ((split, total), ("train", examples))
    )
    evaluation = evaluate_parts(
        model.objective,
        model.autoencoder,
        batches,
        metrics,
        model.priors,
        training=training,
        samples=drawn or (),
        progress=progress,
    )
    density = "the likelihood is a density, which has no bits per dim"
    trained = {"step": model.checkpoint.step, "prior_steps": model.prior_steps}
    judged = {} if samples is None else {"samples": samples.n, "sampled_prior": _prior_of(model, samples)}
    values = {"split": split, **trained, **judged, **evaluation.metrics_by_name()}
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


def _places(dataset: Dataset, split: str, limit: int | None) -> list[int] | None:
    """The order in which examples of unequal lengths are batched with little padding."""
    lengths = lengths_of(dataset, split)
    return None if lengths is None else by_length(lengths, limit)


def draw(
    model: Model,
    dataset: Dataset,
    split: str,
    total: int,
    metrics: Sequence[Metric],
    samples: Samples,
    batch_size: int,
) -> Iterator[Batch]:
    """Batches of samples of what the model's own autoencoder models, each a function of its number and size alone.

    The i-th sample has the conditions of the split's i-th example; beyond its ``total`` examples they begin anew.
    ToolkitError where the prior is not trained, or no metric judges samples.
    """
    if not any(judges_samples(metric) for metric in metrics):
        have = ", ".join(type(metric).__name__ for metric in metrics) or "none"
        raise ToolkitError(
            f"samples={samples.n}: none of the metrics judges samples ({have}): name one that does, such as"
            " metrics=[image_feature_distance]"
        )
    name = _prior_of(model, samples)
    along = [c.name for c in dataset.spec.conditions if c.per_step and c.name in model.seen(name)]
    if along and lengths_of(dataset, split) is not None:
        raise ToolkitError(
            f"samples={samples.n}: condition.{along[0]} has steps, and its examples are of unequal lengths: leave"
            " samples out, or set dataset.lengths=equal"
        )
    return _batches(model, dataset, split, total, samples, batch_size, None if name is None else model.prior(name))


def _batches(
    model: Model, dataset: Dataset, split: str, total: int, samples: Samples, batch_size: int, prior: Prior | None
) -> Iterator[Batch]:
    done, seen = 0, model.seen(_prior_of(model, samples))
    for batch in _conditions(dataset, split, total, samples.n, model, batch_size, bool(seen)):
        known = {name: value for name, value in batch.conditions.items() if name in seen}
        generator = torch.Generator().manual_seed(samples.seed + batch.number)
        n = min(batch_size, samples.n - done)
        x, _ = sample(model.autoencoder, prior, n, known, SamplingOptions(), generator=generator)
        done += n
        samples.progress(done)
        yield Batch({"x": x, **known}, model.device, batch.number)


def _conditions(
    dataset: Dataset, split: str, total: int, n: int, model: Model, batch_size: int, read: bool
) -> Iterator[Batch]:
    """The examples whose conditions samples have; of a model that sees none, no example is read."""
    if read:
        places = [place % total for place in range(n)]
        return split_batches(dataset, split, model.device, batch_size=batch_size, places=places, workers=0)
    return (Batch({"x": torch.empty(0)}, model.device, number) for number in range(-(-n // batch_size)))


def _prior_of(model: Model, samples: Samples) -> str | None:
    """The name of the prior that draws; None for a continuous bottleneck, whose prior is the unit normal."""
    return (samples.prior or model.config.chosen_prior().name) if model.code_spec.depth else None


def example_count(dataset: Dataset, split: str, limit: int | None = None) -> int:
    """How many examples of a split are evaluated; ToolkitError for none."""
    size = dataset.size(split)
    total = size if limit is None else min(size, limit)
    if not total:
        raise ToolkitError(f"split={split} has no examples to evaluate")
    return total


def prior_steps(run: Run) -> dict[str, int]:
    """The step of each prior's checkpoint, its best or its last."""
    steps = {name: chosen_step(run.prior(name)) for name in run.priors()}
    return {name: step for name, step in steps.items() if step is not None}


def with_metrics(config: RunConfig, names: Sequence[str]) -> RunConfig:
    """The configuration with other metrics, if any are named, with the options it has for them."""
    if not names:
        return config
    return replace(config, metric={name: config.metric.get(name, PartConfig(name, {})) for name in names})


def validation_score(run: Run, data: DataSpec, config: RunConfig) -> float | None:
    """Bits per dim, or nats of a density, of the last validation, or of the best where that is kept: what a search
    minimizes.

    With the prior's code bits if it was trained last and has a tractable probability. None without validation.
    """
    autoencoder = last = None
    kept = {stage: read_best(folder) for stage, folder in _stages(run, config).items()}
    for line in run.log:
        best = kept.get(line["stage"])
        if line["split"] == "val" and (best is None or best.step == line["step"]):
            last = line
            autoencoder = line if line["stage"] == "autoencoder" and "nll" in line else autoencoder
    if autoencoder is None or last is None:
        return None
    if last is autoencoder or "loss" not in last or not _is_tractable(config):
        return float(autoencoder.get("bits_per_dim", autoencoder["nll"]))
    nats = _with_prior(autoencoder, last)
    return nats / (autoencoder.get("dims", data.dims) * log(2)) if "bits_per_dim" in autoencoder else nats


def _stages(run: Run, config: RunConfig) -> dict[str, Path]:
    """The folders of the stages, as the log calls these."""
    priors = {f"prior-{config.prior.name}": run.prior(config.prior.name)} if config.prior else {}
    return {"autoencoder": run.autoencoder, **priors}


def _is_tractable(config: RunConfig) -> bool:
    prior: type[Prior] = registry.load("prior", config.chosen_prior().name)
    return prior.tractable


def _with_prior(autoencoder: Mapping[str, Any], prior: Mapping[str, Any]) -> float:
    return float(autoencoder["nll"] + prior["loss"] - autoencoder.get("posterior_entropy", 0.0))
