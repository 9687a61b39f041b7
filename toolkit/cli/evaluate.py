"""``toolkit evaluate``: metrics of a run over a split."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolkit.cli.arguments import parse
from toolkit.cli.report import WORKERS, notes, number, progress, show_plugin_notes, table
from toolkit.errors import printable
from toolkit.options import CHECKPOINT, DEVICE, PRIOR_CHECKPOINT

if TYPE_CHECKING:
    from toolkit.dataset import Dataset
    from toolkit.metric import Metric
    from toolkit.model import Model


@dataclass(frozen=True)
class EvaluateOptions:
    """Measures a run: bits per dim with its two terms, a row per trained prior, and every metric."""

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
    samples: int = field(
        default=0,
        metadata={"help": "how many samples to draw, under the split's conditions, for metrics that judge them"},
    )
    prior: str | None = field(default=None, metadata={"help": "the prior that draws them; null: the run's own"})
    batch_size: int = field(default=64, metadata={"help": "examples at once"})
    workers: int | None = field(default=None, metadata={"help": WORKERS})
    checkpoint: str | None = field(default=None, metadata={"help": CHECKPOINT})
    prior_checkpoint: str | None = field(default=None, metadata={"help": PRIOR_CHECKPOINT})
    device: str = field(default="auto", metadata={"help": DEVICE})


def main(args: list[str]) -> int:
    options = parse("evaluate", EvaluateOptions, args)

    from toolkit.build import build_metrics
    from toolkit.cli.files import build_dataset_of
    from toolkit.model import load
    from toolkit.scoring import Samples, example_count, measure, with_metrics

    show_plugin_notes()
    model = load(options.run, options.device, checkpoint=options.checkpoint, prior_checkpoint=options.prior_checkpoint)
    with nullcontext() if options.metrics else model.run.blaming():
        metrics = build_metrics(with_metrics(model.config, options.metrics), model.autoencoder)
    dataset = build_dataset_of(model, options.dataset)
    count = example_count(dataset, options.split, options.examples)
    with progress("evaluate", count + options.samples) as report:
        drawn = partial(Samples, options.samples, options.prior, progress=lambda done: report(count + done))
        measured = measure(
            model,
            dataset,
            metrics,
            options.split,
            options.examples,
            options.batch_size,
            options.workers,
            progress=report,
            samples=drawn() if options.samples else None,
        )
    notes(measured.notices)
    _print(measured.metrics)
    for path in _plot(model, dataset, options.split, metrics):
        print(printable(str(path)))
    return 0


def _plot(model: Model, dataset: Dataset, split: str, metrics: Iterable[Metric]) -> list[Path]:
    """What positions cost, what entries decode to, and the metrics' pictures, in the run's folder of samples."""
    from toolkit.cli.entries import plot_entries
    from toolkit.cli.positions import plot_costs
    from toolkit.writing import write_into

    folder = model.run.samples

    def draw(aside: Path) -> list[Path]:
        own = [*plot_costs(model, dataset, split, aside), *plot_entries(model, aside)]
        return [*own, *(path for metric in metrics for path in metric.plot(aside))]

    try:
        return write_into(folder, draw)
    except OSError as e:  # the figures are there all the same
        notes([f"the pictures could not be written to {folder}: {e.strerror or e}"])
        return []


def _print(values: dict[str, Any]) -> None:
    rows = [(name, _shown(value)) for name, value in values.items() if not isinstance(value, dict)]
    table("metrics", ("metric", "value"), rows)
    columns = tuple(next(iter(values["priors"].values())))
    table(
        "priors",
        ("prior", *columns),
        [
            (name, *("\N{EN DASH}" if row[c] is None else number(row[c]) for c in columns))
            for name, row in values["priors"].items()
        ],
    )


def _shown(value: Any) -> str:
    return number(value) if isinstance(value, int | float) else str(value)
