"""``toolkit reconstruct``: originals above their reconstructions."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.cli.arguments import parse
from toolkit.cli.report import COMPILE, WORKERS, notes, show_plugin_notes, watching
from toolkit.errors import ToolkitError, printable
from toolkit.options import CHECKPOINT, DEVICE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from toolkit.cli.long import LongFile
    from toolkit.model import Model
    from toolkit.plots.captions import Captions

IN_A_ROW = 8
"""Examples in a row of the picture."""
SHEET = "reconstructions.png"
PIPE = "-"
"""Standard input among the files, standard output as ``out``."""


@dataclass(frozen=True)
class ReconstructOptions:
    """Takes files (or, without any, some of the test split) through codes and back, and plots both.

    ``-`` with ``out=-`` takes raw data from standard input, and gives its reconstruction on standard output as it
    comes.
    """

    run: str = field(metadata={"help": "the run folder"})
    files: list[Path] = field(default_factory=list, metadata={"help": "files of the run's kind of data; -: a pipe"})
    examples: int = field(default=16, metadata={"help": "without files: how many of the test split, from all over it"})
    dataset: dict[str, str] = field(
        default_factory=dict,
        metadata={"help": "dataset.KEY=VALUE: options to read the dataset with, such as root"},
    )
    condition: dict[str, str] = field(default_factory=dict, metadata={"help": "condition.KEY=LABEL for the decoder"})
    compile: bool = field(default=False, metadata={"help": COMPILE})
    out: str | None = field(default=None, metadata={"help": "folder to write to; null: samples/ in the run; -: a pipe"})
    workers: int | None = field(default=None, metadata={"help": WORKERS})
    checkpoint: str | None = field(default=None, metadata={"help": CHECKPOINT})
    device: str = field(default="auto", metadata={"help": DEVICE})


def main(args: list[str]) -> int:
    options = parse("reconstruct", ReconstructOptions, args)

    from toolkit.causal.sampling import compiled
    from toolkit.cli.files import build_dataset_of, unlabeled
    from toolkit.cli.long import beginning, reconstruct_all
    from toolkit.cli.long import read as read_file
    from toolkit.cli.outputs import require_folder, written_together
    from toolkit.cli.reading import read_split
    from toolkit.lengths.mask import shortest, together
    from toolkit.model import load
    from toolkit.plots.captions import plot_captioned
    from toolkit.stages.continuation import changed_data
    from toolkit.stages.pictures import labels_of, spread

    if options.files and options.dataset:
        option = f"dataset.{next(iter(options.dataset))}"
        raise ToolkitError(f"{option}: the files are read alone, without the dataset: leave it out, or the files")
    if PIPE in (options.out, *map(str, options.files)):
        return _through_a_pipe(options)
    if options.out:
        require_folder(Path(options.out))
    show_plugin_notes()
    model = load(options.run, options.device, checkpoint=options.checkpoint)
    notes(model.notices)
    conditions: dict[str, Any] = {}
    read: Sequence[Tensor | LongFile]
    if options.files:
        read = [read_file(model, path) for path in options.files]
        examples = [beginning(example) for example in read]
    else:
        dataset = build_dataset_of(model.bottom, options.dataset)
        notes(changed_data(model.run, dataset))
        places = spread(dataset.size("test"), options.examples)
        if not places:
            raise ToolkitError("the test split has no examples: name files to reconstruct")
        batches = list(read_split(model, dataset, "test", places, options.workers))
        known = shortest(together([row for batch in batches for row in batch.rows()]))
        examples, conditions = list(known.pop("x")), known
        read = examples
    conditions = {**conditions, **model.labels(options.condition, len(examples))}
    notes(unlabeled(model, conditions))
    notes(_whole(model, read))
    out = Path(options.out) if options.out else model.run.samples
    labels = labels_of(model.spec.conditions, conditions, len(examples))
    names = [path.name for path in options.files] or labels
    title = f"{model.run.title}: reconstructions, step {model.checkpoint.step}"
    own = re.compile(rf"{re.escape(SHEET)}|reconstruction-\d{{4,}}{re.escape(model.files.suffix)}")
    try:
        with written_together(out, own, whole=False) as folder:
            targets = [folder / f"reconstruction-{i:04d}{model.files.suffix}" for i in range(len(read))]
            with watching() as report, compiled(options.compile):
                reconstructions = reconstruct_all(model, read, conditions, targets if options.files else [], report)
            rows = beside(examples, reconstructions)
            plot_captioned(model.files.plot, rows, model.spec, folder / SHEET, _captions(title, names, rows))
    except OSError as e:
        raise ToolkitError(f"out={out}: {e.strerror or e}") from e
    print(printable(str(out / SHEET)))
    return 0


def _through_a_pipe(options: ReconstructOptions) -> int:
    from toolkit.cli.pipe import reconstruct
    from toolkit.model import load

    if options.out != PIPE or list(map(str, options.files)) != [PIPE]:
        raise ToolkitError("- is a pipe: write toolkit reconstruct run=RUN - out=-, without other files or folder")
    if options.compile:
        raise ToolkitError("compile=true: a pipe's pieces are too short to compile anything for: leave it out")
    show_plugin_notes()
    model = load(options.run, options.device, checkpoint=options.checkpoint)
    notes(model.notices)
    reconstruct(model, options.condition)
    return 0


def _whole(model: Model, examples: Sequence[Tensor | LongFile]) -> list[str]:
    """What to know of long files."""
    from toolkit.cli.long import LongFile

    long = [example.path for example in examples if isinstance(example, LongFile)]
    if not long:
        return []
    rate = model.spec.rates[0] if model.spec.rates else None
    shown = next(example for example in examples if isinstance(example, LongFile)).beginning.shape[1]
    of = f"{shown / rate:g} seconds" if rate else f"{shown} positions"
    reasons = "; ".join(model.whole_because())
    whole = [f"long files are taken whole, which may take much memory: {reasons}"] if reasons else []
    return [f"the sheet shows the first {of} of {', '.join(path.name for path in long)}", *whole]


def _captions(title: str, names: list[str], rows: list[Tensor]) -> Captions:
    """Names above the originals; rows alternate."""
    from toolkit.plots.captions import Captions

    texts: list[list[str]] = []
    for originals in rows[::2]:
        size, done = len(originals), sum(map(len, texts))
        texts += [names[done : done + size], []]
    return Captions(title, ("original", "reconstruction") * (len(rows) // 2), texts)


def beside(examples: list[Tensor], reconstructions: list[Tensor]) -> list[Tensor]:
    """Rows of originals, each above a row of their reconstructions; one example per row where shapes differ."""
    import torch

    alike = len({example.shape for example in examples}) == 1
    size = IN_A_ROW if alike else 1
    starts = range(0, len(examples), size)
    return [torch.stack(x[start : start + size]) for start in starts for x in (examples, reconstructions)]
