"""``toolkit encode``: files to codes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from toolkit.cli.arguments import parse
from toolkit.cli.report import notes


@dataclass(frozen=True)
class EncodeOptions:
    """Encodes files to one safetensors file of codes, in the smallest integer type."""

    run: str = field(metadata={"help": "the run folder"})
    out: str = field(metadata={"help": "the file to write, ending in .safetensors"})
    files: list[Path] = field(default_factory=list, metadata={"help": "files of the run's kind of data"})
    device: str = field(default="auto", metadata={"help": "auto, cpu or cuda"})


def main(args: list[str]) -> int:
    options = parse("encode", EncodeOptions, args)

    from toolkit.cli.files import read_examples, write_codes_of
    from toolkit.errors import ToolkitError
    from toolkit.model import load

    if not options.files:
        raise ToolkitError("no files: toolkit encode run=DIR FILES… out=F.safetensors")
    model = load(options.run, options.device)
    notes(model.notices)
    codes = model.encode(read_examples(model, options.files)).cpu()
    write_codes_of(model, codes, Path(options.out))
    print(f"{len(codes)} files, {model.latent.rate:.0f} bits each")
    print(options.out)
    return 0
