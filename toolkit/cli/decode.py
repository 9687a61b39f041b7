"""``toolkit decode``: codes to files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.cli.arguments import parse
from toolkit.cli.report import COMPILE, notes, watching
from toolkit.errors import printable
from toolkit.options import CHECKPOINT, DEVICE

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = 16
"""File names printed."""
MOST = 1 << 26
"""Codes decoded at once: half a GiB."""


@dataclass(frozen=True)
class DecodeOptions:
    """Decodes a safetensors file of codes to one file per example.

    Each gets the name, and the folders, of the file that its codes come from, and the suffix of what is written; where
    the file of codes has no names, they are numbered. Labels that were kept with the codes are the conditions of the
    decoder, unless others are given.
    """

    run: str = field(metadata={"help": "the run folder"})
    out: str = field(metadata={"help": "the folder to write to"})
    files: list[Path] = field(default_factory=list, metadata={"help": "one file of codes"})
    condition: dict[str, str] = field(default_factory=dict, metadata={"help": "condition.KEY=LABEL for the decoder"})
    compile: bool = field(default=False, metadata={"help": COMPILE})
    checkpoint: str | None = field(default=None, metadata={"help": CHECKPOINT})
    device: str = field(default="auto", metadata={"help": DEVICE})


def main(args: list[str]) -> int:
    options = parse("decode", DecodeOptions, args)

    import numpy as np
    import torch

    from toolkit.causal.sampling import compiled
    from toolkit.cli.files import kept_labels, unlabeled, write_named
    from toolkit.cli.long import decode_varying
    from toolkit.cli.named import KEY, from_bytes, targets
    from toolkit.cli.outputs import require_folder
    from toolkit.errors import ToolkitError
    from toolkit.model import load
    from toolkit.runs.codes import read_codes

    if len(options.files) != 1:
        raise ToolkitError(
            f"expected one file of codes, got {len(options.files)}: toolkit decode run=DIR F.safetensors"
        )
    path = options.files[0]
    if not path.is_file():
        raise ToolkitError(f"{path}: no such file")
    require_folder(Path(options.out))
    model = load(options.run, options.device, checkpoint=options.checkpoint)
    notes(model.notices)
    arrays, metadata = read_codes(path)
    if metadata.get("weights") not in (None, model.checkpoint.weights_hash):
        notes([f"{path} was encoded with other weights than those that are opened"])
    if arrays["codes"].size > MOST:
        raise ToolkitError(f"{path} holds {arrays['codes'].size:,} codes: at most {MOST:,} are decoded at once")
    codes = torch.from_numpy(np.array(arrays["codes"])).long()
    out = Path(options.out)
    try:
        names = from_bytes(arrays[KEY], len(codes)) if KEY in arrays else [""] * len(codes)
        conditions = {**kept_labels(model, arrays), **model.labels(options.condition, len(codes))}
        notes(unlabeled(model, conditions))
        with watching() as report, compiled(options.compile):
            x: Iterable[Iterable[Tensor]]
            if "axes" in arrays:
                x = decode_varying(model, codes, torch.from_numpy(np.array(arrays["axes"])), conditions, report)
            else:
                x = ([example] for example in model.decode(codes, conditions, progress=report).cpu())
            out.mkdir(parents=True, exist_ok=True)
            paths = write_named(model, x, model.spec, out, targets(names, model.files.suffix, path.stem))
    except ValueError as e:
        raise ToolkitError(f"{path}: {e}") from e
    except OSError as e:
        raise ToolkitError(f"out={out}: {e.strerror or e}") from e
    for file in paths[:SHOWN]:
        print(printable(str(file)))
    if len(paths) > SHOWN:
        print(f"… {len(paths)} files in {printable(str(out))}")
    return 0
