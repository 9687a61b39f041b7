"""``toolkit compress``: files, or a split of the dataset, to as few bytes as their codes need."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from toolkit.cli.arguments import parse
from toolkit.cli.report import WORKERS, notes, progress, show_plugin_notes
from toolkit.errors import ToolkitError, printable
from toolkit.options import CHECKPOINT, DEVICE, PRIOR_CHECKPOINT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toolkit.cli.compressing import Written
    from toolkit.coding.codec import Codec
    from toolkit.model import Model


@dataclass(frozen=True)
class CompressOptions:
    """Compresses files, all files in folders, or a split: codes by a range coder under a prior's probabilities.

    To one file, or to one for each in a folder. toolkit decompress gives the data's reconstructions back, or with
    lossless=true the data itself; see docs/compress.md.
    """

    run: str = field(metadata={"help": "the run folder"})
    out: str = field(metadata={"help": "one file, ending in .tkc, or a folder for a file each"})
    files: list[Path] = field(default_factory=list, metadata={"help": "files of the run's kind of data, or folders"})
    split: Literal["train", "val", "test"] | None = field(
        default=None, metadata={"help": "without files: which part of the dataset"}
    )
    examples: int | None = field(default=None, metadata={"help": "how many of the split's, at most; null: all"})
    prior: str | None = field(default=None, metadata={"help": "a trained prior, or uniform; null: the configured one"})
    depth: int | None = field(default=None, metadata={"help": "keep so many codes of each position; null: all"})
    lossless: bool = field(default=False, metadata={"help": "keep the data itself, under the decoder's likelihood"})
    condition: dict[str, str] = field(default_factory=dict, metadata={"help": "condition.KEY=LABEL of the files"})
    dataset: dict[str, str] = field(
        default_factory=dict,
        metadata={"help": "dataset.KEY=VALUE: options to read the dataset with, such as root"},
    )
    workers: int | None = field(default=None, metadata={"help": WORKERS})
    checkpoint: str | None = field(default=None, metadata={"help": CHECKPOINT})
    prior_checkpoint: str | None = field(default=None, metadata={"help": PRIOR_CHECKPOINT})
    device: str = field(default="auto", metadata={"help": DEVICE})


def main(args: list[str]) -> int:
    options = parse("compress", CompressOptions, args)

    from toolkit.cli.compressing import rows_of, write
    from toolkit.cli.files import build_dataset_of
    from toolkit.cli.items import file_items
    from toolkit.cli.reading import split_items
    from toolkit.coding.container import SUFFIX
    from toolkit.model import load

    if bool(options.files) == bool(options.split):
        usage = f"toolkit compress run=DIR FILES-OR-FOLDERS… out=F{SUFFIX}, or split=test in place of files"
        raise ToolkitError(f"{'files and split: give one of them' if options.files else 'no files'}: {usage}")
    out = Path(options.out)
    _check_out(out)
    show_plugin_notes()
    model = load(options.run, options.device, checkpoint=options.checkpoint, prior_checkpoint=options.prior_checkpoint)
    notes(model.notices)
    codec = model.codec(options.prior, lossless=options.lossless, depth=options.depth)
    if options.split:
        dataset = build_dataset_of(model.bottom, options.dataset)
        items = split_items(model, dataset, options.split, options.workers, options.examples)
    else:
        items = file_items(model, options.files)
    labels = model.labels(options.condition, len(items), prior=codec.prior_name)
    begun = time.perf_counter()
    with progress("encode", len(items)) as report:
        rows = rows_of(model, codec, items, labels, report)
    encoded = time.perf_counter()
    try:
        with progress("compress", len(rows)) as report:
            written = write(codec, rows, out, report)
    except OSError as e:
        raise ToolkitError(f"out={out}: {e.strerror or e}") from e
    done = time.perf_counter()
    for line in _report(model, codec, rows, written, encoded - begun, done - encoded):
        print(line)
    print(printable(options.out))
    return 0


def _check_out(out: Path) -> None:
    from toolkit.cli.outputs import require_file, require_folder
    from toolkit.coding.container import SUFFIX

    if out.suffix == SUFFIX:
        require_file(out)
    else:
        require_folder(out)


def _report(
    model: Model, codec: Codec, rows: Sequence[object], written: Written, encoding: float, coding: float
) -> list[str]:
    """What it came to, beside what the probabilities promised."""
    n, bits = len(rows), 8 * written.stream
    promised = f"{100 * (bits / written.bits - 1):+.2f} % of the {written.bits / n:.1f} by prior={codec.prior_name}"
    levels = model.spec.levels
    per_dim = f", {bits / written.dims:.4g} bits per dim" if levels else ""
    raw = written.dims * (8 if levels is None or levels > 256 else max(1, (levels - 1).bit_length())) / 8
    return [
        f"examples: {n}, bytes: {written.stream + written.header} ({written.header} of headers)",
        f"bits each: {bits / n:.1f}{per_dim} ({promised})",
        f"in {encoding:.1f} s to codes and {coding:.1f} s to bytes: {raw / (encoding + coding) / 1e6:.3g} MB/s",
    ]
