"""``toolkit reconstruct``: original beside reconstruction."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from toolkit.cli.arguments import parse
from toolkit.cli.report import notes, show_plugin_notes


@dataclass(frozen=True)
class ReconstructOptions:
    """Takes files (or, without any, the first of the test split) through codes and back, and draws both."""

    run: str = field(metadata={"help": "the run folder"})
    files: list[Path] = field(default_factory=list, metadata={"help": "files of the run's kind of data"})
    examples: int = field(default=16, metadata={"help": "without files: how many of the test split"})
    dataset: dict[str, str] = field(
        default_factory=dict,
        metadata={"help": "dataset.KEY=VALUE: options to read the dataset with, such as root"},
    )
    condition: dict[str, str] = field(default_factory=dict, metadata={"help": "condition.KEY=LABEL for the decoder"})
    out: str | None = field(default=None, metadata={"help": "folder to write to; null: samples/ in the run"})
    device: Literal["auto", "cpu", "cuda"] = field(default="auto", metadata={"help": "auto: a GPU if there is one"})


def main(args: list[str]) -> int:
    options = parse("reconstruct", ReconstructOptions, args)

    from toolkit.batches import split_batches
    from toolkit.cli.files import build_dataset_of, read_examples, unlabelled, write_examples
    from toolkit.errors import ToolkitError
    from toolkit.model import load

    show_plugin_notes()
    model = load(options.run, options.device)
    notes(model.notices)
    conditions: dict[str, Any] = {}
    if options.files:
        x = read_examples(model, options.files)
    else:
        dataset = build_dataset_of(model.bottom, options.dataset)
        batch = next(
            split_batches(dataset, "test", model.device, batch_size=options.examples, limit=options.examples), None
        )
        if batch is None:
            raise ToolkitError("the test split has no examples: name files to reconstruct")
        x, conditions = batch.x.cpu(), batch.conditions
    conditions = {**conditions, **model.labels(options.condition, len(x))}
    notes(unlabelled(model, conditions))
    made = model.reconstruct(x, conditions).cpu()
    out = Path(options.out) if options.out else model.run.samples
    sheet = out / "reconstructions.png"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if options.files:
            write_examples(model, made, model.spec, out, "reconstruction")
        rows = [row for pair in zip(x.split(8), made.split(8), strict=True) for row in pair]
        model.files.draw(rows, model.spec, sheet)
    except OSError as e:
        raise ToolkitError(f"out={out}: {e.strerror or e}") from e
    print(sheet)
    return 0
