"""``toolkit evaluate``: figures of a run over a split."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from toolkit.cli.arguments import parse
from toolkit.cli.report import notes, number, progress, show_plugin_notes, table


@dataclass(frozen=True)
class EvaluateOptions:
    """Measures a run: bits per dim with both terms apart, a row per trained prior, and every metric's figures."""

    run: str = field(metadata={"help": "the run folder"})
    split: Literal["train", "val", "test"] = field(default="test", metadata={"help": "which part of the dataset"})
    examples: int | None = field(default=None, metadata={"help": "how many of the split's examples; null: all"})
    metrics: list[str] = field(default_factory=list, metadata={"help": "metrics by name; none: the run's own"})
    dataset: dict[str, str] = field(
        default_factory=dict,
        metadata={"help": "dataset.KEY=VALUE: options to read the dataset with, such as root"},
    )
    batch_size: int = field(default=64, metadata={"help": "examples at once"})
    device: Literal["auto", "cpu", "cuda"] = field(default="auto", metadata={"help": "auto: a GPU if there is one"})


def main(args: list[str]) -> int:
    options = parse("evaluate", EvaluateOptions, args)

    from toolkit.batches import split_batches
    from toolkit.build import build_metrics
    from toolkit.checkpoint import write_text
    from toolkit.cli.files import build_dataset_of
    from toolkit.errors import ToolkitError
    from toolkit.evaluate import evaluate
    from toolkit.model import load

    show_plugin_notes()
    model = load(options.run, options.device)
    config = model.config
    if options.metrics:
        config = {
            **config,
            "metric": {name: config["metric"].get(name, {"name": name}) for name in options.metrics},
        }
    dataset = build_dataset_of(model, options.dataset)
    size = dataset.size(options.split)
    total = size if options.examples is None else min(size, options.examples)
    if not total:
        raise ToolkitError(f"split={options.split} has no examples to evaluate")
    batches = split_batches(dataset, options.split, model.device, batch_size=options.batch_size, limit=total)
    with progress("evaluate", total) as report:
        evaluation = evaluate(
            model.objective,
            model.autoencoder,
            batches,
            build_metrics(config, model.spec, model.latent),
            model.priors,
            progress=report,
        )
    density = "the likelihood is a density, which has no bits per dim"
    notes([*model.notices, *evaluation.warnings, *([density] if evaluation.density else [])])
    figures = {"split": options.split, "step": model.checkpoint.step, **evaluation.figures()}
    write_text(model.run.path / "evaluation.json", json.dumps(figures, indent=1))
    _print(figures)
    return 0


def _print(figures: dict[str, Any]) -> None:
    priors = figures.pop("priors")
    rows = [(name, number(value) if isinstance(value, int | float) else str(value)) for name, value in figures.items()]
    table("figures", ("figure", "value"), rows)
    columns = tuple(next(iter(priors.values())))
    table(
        "priors",
        ("prior", *columns),
        [(name, *(number(row[c]) for c in columns)) for name, row in priors.items()],
    )
