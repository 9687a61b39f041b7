"""``toolkit encode``: files to codes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from toolkit.cli.arguments import parse
from toolkit.cli.report import notes


@dataclass(frozen=True)
class EncodeOptions:
    """Encodes files to one safetensors file of codes, in the smallest integer type."""

    run: str = field(metadata={"help": "the run folder"})
    out: str = field(metadata={"help": "the file to write, ending in .safetensors"})
    files: list[Path] = field(default_factory=list, metadata={"help": "files of the run's kind of data"})
    device: Literal["auto", "cpu", "cuda"] = field(default="auto", metadata={"help": "auto: a GPU if there is one"})


def main(args: list[str]) -> int:
    options = parse("encode", EncodeOptions, args)

    from toolkit.cli.files import read_examples, write_codes_of
    from toolkit.errors import ToolkitError
    from toolkit.model import load
    from toolkit.sample import BATCH

    if not options.files:
        raise ToolkitError("no files: toolkit encode run=DIR FILES… out=F.safetensors")
    model = load(options.run, options.device)
    notes(model.notices)
    parts = (options.files[i : i + BATCH] for i in range(0, len(options.files), BATCH))
    codes = (model.encode(read_examples(model, part)).cpu() for part in parts)
    write_codes_of(model, codes, len(options.files), Path(options.out))
    print(f"files: {len(options.files)}, bits each: {model.latent.rate:.0f}")
    print(options.out)
    return 0
