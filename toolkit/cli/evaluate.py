"""``toolkit evaluate``: figures of a run over a split."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolkit.cli.arguments import parse
from toolkit.cli.report import notes, number, progress, show_plugin_notes, table

if TYPE_CHECKING:
    from toolkit.dataset import Dataset
    from toolkit.metric import Metric
    from toolkit.model import Model
    from toolkit.run import Run


@dataclass(frozen=True)
class EvaluateOptions:
    """Measures a run: bits per dim with both terms apart, a row per trained prior, and every metric's figures."""

    run: str = field(metadata={"help": "the run folder"})
    split: Literal["train", "val", "test"] = field(default="test", metadata={"help": "which part of the dataset"})
    examples: int | None = field(
        default=None,
        metadata={"help": "how many of the split's examples (and of those that a metric is fitted to); null: all"},
    )
    metrics: list[str] = field(default_factory=list, metadata={"help": "metrics by name; none: the run's own"})
    dataset: dict[str, str] = field(
        default_factory=dict,
        metadata={"help": "dataset.KEY=VALUE: options to read the dataset with, such as root"},
    )
    batch_size: int = field(default=64, metadata={"help": "examples at once"})
    device: Literal["auto", "cpu", "cuda"] = field(default="auto", metadata={"help": "auto: a GPU if there is one"})


def main(args: list[str]) -> int:
    options = parse("evaluate", EvaluateOptions, args)

    from toolkit.build import build_metrics
    from toolkit.cli.files import build_dataset_of
    from toolkit.model import load

    show_plugin_notes()
    model = load(options.run, options.device)
    with nullcontext() if options.metrics else model.run.blaming():
        metrics = build_metrics(_with_metrics(model.config, options.metrics), model.autoencoder)
    dataset = build_dataset_of(model, options.dataset)
    figures, told = measure(model, dataset, metrics, options.split, options.examples, options.batch_size)
    notes(told)
    pictures = _draw(metrics, model.run.samples)
    _print(figures)
    for path in pictures:
        print(path)
    return 0


def measure(
    model: Model,
    dataset: Dataset,
    metrics: list[Metric],
    split: str,
    examples: int | None = None,
    batch_size: int = 64,
) -> tuple[dict[str, Any], list[str]]:
    """The figures of a run over a split's first ``examples``, written to its evaluation.json, and what a person should
    know about them. ToolkitError where the split is empty.
    """
    from toolkit.batches import split_batches
    from toolkit.checkpoint import write_text
    from toolkit.errors import ToolkitError
    from toolkit.evaluate import evaluate

    size = dataset.size(split)
    total = size if examples is None else min(size, examples)
    if not total:
        raise ToolkitError(f"split={split} has no examples to evaluate")
    batches = split_batches(dataset, split, model.device, batch_size=batch_size, limit=total)
    training = split_batches(dataset, "train", model.device, batch_size=batch_size, limit=examples)
    with progress("evaluate", total) as report:
        evaluation = evaluate(
            model.objective, model.autoencoder, batches, metrics, model.priors, training=training, progress=report
        )
    density = "the likelihood is a density, which has no bits per dim"
    trained = {"step": model.checkpoint.step, "prior_steps": prior_steps(model.run)}
    figures = {"split": split, **trained, **evaluation.figures()}
    path = model.run.path / "evaluation.json"
    try:
        write_text(path, json.dumps(figures, indent=1))
    except OSError as e:
        raise ToolkitError(f"{path}: {e.strerror or e}") from e
    return figures, [*model.notices, *evaluation.warnings, *([density] if evaluation.density else [])]


def prior_steps(run: Run) -> dict[str, int]:
    """How far each prior is trained."""
    from toolkit.checkpoint import found

    return {name: int(found(run.prior(name))[-1].name[5:]) for name in run.priors()}


def _with_metrics(config: Mapping[str, Any], names: list[str]) -> Mapping[str, Any]:
    """The configuration with other metrics, which keep the options that it has for them."""
    if not names:
        return config
    return {**config, "metric": {name: config["metric"].get(name, {"name": name}) for name in names}}


def _draw(metrics: Iterable[Metric], folder: Path) -> list[Path]:
    """The metrics' pictures, in the run's folder of samples."""
    from toolkit.errors import ToolkitError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [path for metric in metrics for path in metric.draw(folder)]
    except OSError as e:
        raise ToolkitError(f"{folder}: the pictures cannot be written: {e.strerror or e}") from e


def _print(figures: dict[str, Any]) -> None:
    rows = [(name, _shown(value)) for name, value in figures.items() if not isinstance(value, dict)]
    table("figures", ("figure", "value"), rows)
    columns = tuple(next(iter(figures["priors"].values())))
    table(
        "priors",
        ("prior", *columns),
        [
            (name, *("\N{EN DASH}" if row[c] is None else number(row[c]) for c in columns))
            for name, row in figures["priors"].items()
        ],
    )


def _shown(value: Any) -> str:
    return number(value) if isinstance(value, int | float) else str(value)
