"""``toolkit encode``: files to codes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from toolkit.cli.arguments import parse
from toolkit.cli.report import notes
from toolkit.errors import printable


@dataclass(frozen=True)
class EncodeOptions:
    """Encodes files to one safetensors file of codes, in the smallest integer type."""

    run: str = field(metadata={"help": "the run folder"})
    out: str = field(metadata={"help": "the file to write, ending in .safetensors"})
    files: list[Path] = field(default_factory=list, metadata={"help": "files of the run's kind of data"})
    device: Literal["auto", "cpu", "cuda"] = field(default="auto", metadata={"help": "auto: a GPU if there is one"})


def main(args: list[str]) -> int:
    options = parse("encode", EncodeOptions, args)

    import torch

    from toolkit.cli.files import encode_examples, read_examples, write_codes_of, write_varying_codes
    from toolkit.errors import ToolkitError
    from toolkit.model import load
    from toolkit.sample import BATCH

    if not options.files:
        raise ToolkitError("no files: toolkit encode run=DIR FILES… out=F.safetensors")
    model = load(options.run, options.device)
    notes(model.notices)
    if any(model.spec.varying) and not model.code_spec.parts:
        write_varying_codes(model, read_examples(model, options.files), Path(options.out))
        print(f"files: {len(options.files)}")
    else:
        parts = (options.files[i : i + BATCH] for i in range(0, len(options.files), BATCH))
        codes = (torch.stack(encode_examples(model, read_examples(model, part))) for part in parts)
        write_codes_of(model, codes, len(options.files), Path(options.out))
        print(f"files: {len(options.files)}, bits each: {model.code_spec.rate:.0f}")
    print(printable(options.out))
    return 0
