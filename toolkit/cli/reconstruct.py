"""``toolkit reconstruct``: originals above their reconstructions."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolkit.cli.arguments import parse
from toolkit.cli.report import COMPILE, notes, show_plugin_notes, watching

if TYPE_CHECKING:
    from torch import Tensor

IN_A_ROW = 8
"""Examples in a row of the picture."""


@dataclass(frozen=True)
class ReconstructOptions:
    """Takes files (or, without any, the first of the test split) through codes and back, and plots both."""

    run: str = field(metadata={"help": "the run folder"})
    files: list[Path] = field(default_factory=list, metadata={"help": "files of the run's kind of data"})
    examples: int = field(default=16, metadata={"help": "without files: how many of the test split"})
    dataset: dict[str, str] = field(
        default_factory=dict,
        metadata={"help": "dataset.KEY=VALUE: options to read the dataset with, such as root"},
    )
    condition: dict[str, str] = field(default_factory=dict, metadata={"help": "condition.KEY=LABEL for the decoder"})
    compile: bool = field(default=False, metadata={"help": COMPILE})
    out: str | None = field(default=None, metadata={"help": "folder to write to; null: samples/ in the run"})
    device: Literal["auto", "cpu", "cuda"] = field(default="auto", metadata={"help": "auto: a GPU if there is one"})


def main(args: list[str]) -> int:
    options = parse("reconstruct", ReconstructOptions, args)

    from toolkit.batches import split_batches
    from toolkit.causal.sampling import compiled
    from toolkit.cli.files import build_dataset_of, read_examples, reconstruct_examples, unlabeled, write_examples
    from toolkit.continuation import changed_data
    from toolkit.errors import ToolkitError
    from toolkit.model import load

    show_plugin_notes()
    model = load(options.run, options.device)
    notes(model.notices)
    conditions: dict[str, Any] = {}
    if options.files:
        examples = read_examples(model, options.files)
    else:
        dataset = build_dataset_of(model.bottom, options.dataset)
        notes(changed_data(model.run, dataset))
        batch = next(
            split_batches(dataset, "test", model.device, batch_size=options.examples, limit=options.examples), None
        )
        if batch is None:
            raise ToolkitError("the test split has no examples: name files to reconstruct")
        examples, conditions = list(batch.x.cpu()), batch.conditions
    conditions = {**conditions, **model.labels(options.condition, len(examples))}
    notes(unlabeled(model, conditions))
    with watching() as report, compiled(options.compile):
        reconstructions = reconstruct_examples(model, examples, conditions, report)
    out = Path(options.out) if options.out else model.run.samples
    sheet = out / "reconstructions.png"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if options.files:
            write_examples(model, reconstructions, model.spec, out, "reconstruction")
        model.files.plot(beside(examples, reconstructions), model.spec, sheet)
    except OSError as e:
        raise ToolkitError(f"out={out}: {e.strerror or e}") from e
    print(sheet)
    return 0


def beside(examples: list[Tensor], reconstructions: list[Tensor]) -> list[Tensor]:
    """Rows of originals, each above a row of their reconstructions; one example per row where shapes differ."""
    import torch

    alike = len({example.shape for example in examples}) == 1
    size = IN_A_ROW if alike else 1
    starts = range(0, len(examples), size)
    return [torch.stack(x[start : start + size]) for start in starts for x in (examples, reconstructions)]
