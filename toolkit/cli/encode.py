"""``toolkit encode``: files, or a split of the dataset, to codes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from toolkit.cli.arguments import parse
from toolkit.cli.report import WORKERS, notes, progress, show_plugin_notes
from toolkit.errors import printable
from toolkit.options import CHECKPOINT, DEVICE


@dataclass(frozen=True)
class EncodeOptions:
    """Encodes files, all files in folders, or a split of the run's dataset to one safetensors file of codes.

    The file has the codes in the smallest integer type, the name of the file that each example comes from, the labels
    of a split, and where lengths vary the length of each; see docs/codes.md.
    """

    run: str = field(metadata={"help": "the run folder"})
    out: str = field(metadata={"help": "the file to write, ending in .safetensors"})
    files: list[Path] = field(default_factory=list, metadata={"help": "files of the run's kind of data, or folders"})
    split: Literal["train", "val", "test"] | None = field(
        default=None, metadata={"help": "without files: which part of the dataset"}
    )
    dataset: dict[str, str] = field(
        default_factory=dict,
        metadata={"help": "dataset.KEY=VALUE: options to read the dataset with, such as root"},
    )
    workers: int | None = field(default=None, metadata={"help": WORKERS})
    checkpoint: str | None = field(default=None, metadata={"help": CHECKPOINT})
    device: str = field(default="auto", metadata={"help": DEVICE})


def main(args: list[str]) -> int:
    options = parse("encode", EncodeOptions, args)

    from toolkit.cli.encoding import codes_per_second, write
    from toolkit.cli.files import build_dataset_of
    from toolkit.cli.items import file_items
    from toolkit.cli.outputs import require_file
    from toolkit.cli.reading import split_items
    from toolkit.errors import ToolkitError
    from toolkit.lengths.known import lengths_of
    from toolkit.model import load

    if bool(options.files) == bool(options.split):
        usage = "toolkit encode run=DIR FILES-OR-FOLDERS… out=F.safetensors, or split=test in place of files"
        raise ToolkitError(f"{'files and split: give one of them' if options.files else 'no files'}: {usage}")
    require_file(Path(options.out))
    show_plugin_notes()
    model = load(options.run, options.device, checkpoint=options.checkpoint)
    notes(model.notices)
    if options.split:
        dataset = build_dataset_of(model.bottom, options.dataset)
        items = split_items(model, dataset, options.split, options.workers)
        varying = lengths_of(dataset, options.split) is not None
    else:
        items = file_items(model, options.files)
        varying = any(model.spec.varying) and not model.code_spec.parts
    begun = time.perf_counter()
    with progress("encode", len(items)) as report:
        write(model, items, Path(options.out), varying, report)
    seconds = time.perf_counter() - begun
    words = [f"{'examples' if options.split else 'files'}: {len(items)}"]
    words += [] if varying else [f"bits each: {model.code_spec.rate:.0f}"]
    per_second = codes_per_second(model)
    words += [f"{per_second:g} codes for a second of data"] if per_second else []
    print(", ".join([*words, f"in {seconds:.1f} s"]))
    print(printable(options.out))
    return 0
