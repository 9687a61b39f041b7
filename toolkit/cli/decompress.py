"""``toolkit decompress``: what ``toolkit compress`` wrote, to files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from toolkit.cli.arguments import parse
from toolkit.cli.report import COMPILE, notes, progress, show_plugin_notes, watching
from toolkit.errors import ToolkitError, printable
from toolkit.options import CHECKPOINT, DEVICE, PRIOR_CHECKPOINT

SHOWN = 16
"""File names printed."""


@dataclass(frozen=True)
class DecompressOptions:
    """Writes the examples of compressed files, of all in folders, each to a file: their reconstructions, or, where they
    were compressed with lossless=true, the data itself.

    Needs the run that they were compressed by. What is damaged, or was written where probabilities round otherwise, is
    refused.
    """

    run: str = field(metadata={"help": "the run folder"})
    out: str = field(metadata={"help": "the folder to write to"})
    files: list[Path] = field(default_factory=list, metadata={"help": "compressed files, or folders of them"})
    compile: bool = field(default=False, metadata={"help": COMPILE})
    checkpoint: str | None = field(default=None, metadata={"help": CHECKPOINT})
    prior_checkpoint: str | None = field(default=None, metadata={"help": PRIOR_CHECKPOINT})
    device: str = field(default="auto", metadata={"help": DEVICE})


def main(args: list[str]) -> int:
    options = parse("decompress", DecompressOptions, args)

    from toolkit.causal.sampling import compiled
    from toolkit.cli.decompressing import pieces_of, read_all
    from toolkit.cli.files import write_named
    from toolkit.cli.named import find, targets
    from toolkit.cli.outputs import require_folder
    from toolkit.coding.container import SUFFIX
    from toolkit.model import load

    if not options.files:
        raise ToolkitError(f"no files: toolkit decompress run=DIR FILES-OR-FOLDERS… out=DIR (files end in {SUFFIX})")
    out = Path(options.out)
    require_folder(out)
    show_plugin_notes()
    model = load(options.run, options.device, checkpoint=options.checkpoint, prior_checkpoint=options.prior_checkpoint)
    notes(model.notices)
    files = find(options.files, (SUFFIX,))
    with progress("decompress", len(files)) as report:
        rows = read_all(model, files, report)
    try:
        out.mkdir(parents=True, exist_ok=True)
        names = targets([row.example.name for row in rows], model.files.suffix, files[0].stem)
        with watching() as shown, compiled(options.compile):
            paths = write_named(model, pieces_of(model, rows, shown), model.spec, out, names)
    except OSError as e:
        raise ToolkitError(f"out={out}: {e.strerror or e}") from e
    for path in paths[:SHOWN]:
        print(printable(str(path)))
    if len(paths) > SHOWN:
        print(f"… {len(paths)} files in {printable(str(out))}")
    return 0
