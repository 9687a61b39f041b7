"""``toolkit export``: a run as graphs that other programs run."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from toolkit.cli.arguments import parse
from toolkit.cli.report import notes, number, show_plugin_notes, table
from toolkit.errors import printable
from toolkit.options import CHECKPOINT

OWN = re.compile(r"(encoder|decoder|embed)\.(onnx|onnx\.data|pt2)|spec\.json|export\.json|run\.py")
"""Files of an earlier call, which make place."""


@dataclass(frozen=True)
class ExportOptions:
    """Writes a run's first stage as graphs that need no toolkit: data to codes, codes to data, codes to latents.

    Beside them are spec.json, which says in numbers what goes in and out, run.py, a script that needs the graphs'
    runtime and NumPy alone, and export.json, which says what differs from the model, and how fast both are.
    """

    run: str = field(metadata={"help": "the run folder"})
    out: str = field(metadata={"help": "the folder to write to"})
    format: Literal["onnx", "torch"] = field(
        default="onnx", metadata={"help": "onnx needs the extra of that name; torch is PyTorch's own (.pt2)"}
    )
    graphs: list[str] = field(
        default_factory=list, metadata={"help": "some of encoder, decoder, embed; none: all that there are"}
    )
    checkpoint: str | None = field(default=None, metadata={"help": CHECKPOINT})
    split: Literal["train", "val", "test"] = field(default="test", metadata={"help": "what they are tried on"})
    examples: int = field(default=64, metadata={"help": "how many of the split's examples"})
    dataset: dict[str, str] = field(
        default_factory=dict,
        metadata={"help": "dataset.KEY=VALUE: options to read the dataset with, such as root"},
    )


def main(args: list[str]) -> int:
    options = parse("export", ExportOptions, args)

    from toolkit.cli.files import build_dataset_of
    from toolkit.cli.outputs import require_folder, written_together
    from toolkit.errors import ToolkitError
    from toolkit.exporting.export import batch_of, check_folder, check_names, write_graphs
    from toolkit.exporting.onnx_file import require
    from toolkit.model import load

    out = Path(options.out)
    require_folder(out)
    check_folder(out)
    check_names(options.graphs)
    if options.format == "onnx":
        require()
    show_plugin_notes()
    model = load(options.run, "cpu", checkpoint=options.checkpoint)
    notes(model.notices)
    given = build_dataset_of(model.bottom, options.dataset) if options.dataset else None
    batch = batch_of(model, lambda: given or model.bottom.dataset, options.split, options.examples)
    try:
        with written_together(out, OWN, whole=False) as folder:
            report = write_graphs(model, folder, options.format, options.graphs, batch)
            names = sorted(path.name for path in folder.iterdir())
    except OSError as e:
        raise ToolkitError(f"out={out}: {e.strerror or e}") from e
    finally:
        with suppress(OSError):
            out.rmdir()  # where nothing could be exported
    notes([f"{name} is left out: {why}" for name, why in report["left_out"].items()])
    notes([f"{name} takes data of one size only: {why}" for name, why in report["fixed"].items()])
    print(printable(f"tried on {report['tried_on']}"))
    _print(report)
    for name in names:
        print(printable(str(out / name)))
    return 0


def _print(report: dict[str, Any]) -> None:
    rows = []
    for name, graph in report["graphs"].items():
        speed = graph["examples_per_second"]
        size = f"{graph['bytes'] / 2**20:.2f}"
        for output, found in graph["outputs"].items():
            rows.append((f"{name}: {output}", _told(found), size, number(speed["graph"]), number(speed["torch"])))
            size = ""
    table("graphs", ("graph: output", "differs from the model", "MiB", "examples/s", "of torch"), rows)


def _told(found: dict[str, Any]) -> str:
    """What differs, in words."""
    if "unequal" not in found:
        return f"at most {found['largest_difference']:.1e}"
    if not found["unequal"]:
        return f"none of {found['numbers']:,}"
    ties = f", {found['ties']:,} of them ties in rounding" if "ties" in found else ""
    return f"{found['unequal']:,} of {found['numbers']:,}{ties}"
