"""``toolkit compare``: the metrics of several runs side by side."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolkit.cli.alike import Row, unequal_counts, unequal_data, unequal_rates
from toolkit.cli.arguments import parse
from toolkit.cli.outputs import require_folder
from toolkit.cli.report import WORKERS, notes, number, show_plugin_notes, table
from toolkit.config import RunConfig
from toolkit.errors import ToolkitError, printable
from toolkit.options import CHECKPOINT, DEVICE

if TYPE_CHECKING:
    from toolkit.runs.folder import Run

COLUMNS = {
    "steps": "step",
    "rate": "rate",
    "bits/dim": "bits_per_dim",
    "data bits/dim": "data_bits_per_dim",
    "code bits/dim": "code_bits_per_dim",
    "psnr": "psnr",
    "usage": "usage",
    "perplexity": "perplexity",
}
"""Headings, and the metrics of evaluation.json below them."""

NONE = "\N{EN DASH}"
NAME = "evaluation.json"


@dataclass(frozen=True)
class CompareOptions:
    """Metrics of several runs side by side: a table, and a plot of each run's rate against its distortion.

    A folder that holds runs, such as a sweep's, stands for all of them. The metrics are those of each run's
    evaluation.json; a run without one of this split and of the checkpoints that are opened is evaluated now. A run with
    several trained priors has a row for each. Notes say where runs differ in what a comparison takes to be equal: the
    dataset, the rate of their codes, the number of examples.

    With against= the runs are compared with everyday codecs instead, on the same examples: bytes and error at each
    quality, as a table and as curves; see docs/compress.md.
    """

    runs: list[str] = field(default_factory=list, metadata={"help": "run folders, or folders of runs"})
    out: str | None = field(
        default=None,
        metadata={"help": "where compare.json, .md and .png go; null: the sweep's folder, else outputs/compare"},
    )
    split: Literal["train", "val", "test"] = field(default="test", metadata={"help": "which part of the dataset"})
    examples: int | None = field(
        default=None, metadata={"help": "how many examples a run is evaluated on now, at most; null: all"}
    )
    batch_size: int = field(default=64, metadata={"help": "examples at once"})
    against: list[str] = field(
        default_factory=list, metadata={"help": "everyday codecs to compare with, such as [png,jpeg] or [flac,opus]"}
    )
    files: Path | None = field(default=None, metadata={"help": "against: a file or folder in place of the split"})
    prior: str | None = field(
        default=None, metadata={"help": "against: the prior that codes are written by; null: the configured one"}
    )
    lossless: bool = field(default=False, metadata={"help": "against: runs also keep the data itself"})
    condition: dict[str, str] = field(
        default_factory=dict, metadata={"help": "against: condition.KEY=LABEL of the files"}
    )
    workers: int | None = field(default=None, metadata={"help": WORKERS})
    checkpoint: str | None = field(default=None, metadata={"help": CHECKPOINT})
    device: str = field(default="auto", metadata={"help": DEVICE})


def main(args: list[str]) -> int:
    options = parse("compare", CompareOptions, args)
    if not options.runs:
        raise ToolkitError("no runs: toolkit compare RUNS…, with run folders or folders of runs")
    _check(options)
    require_folder(_out(options))
    show_plugin_notes()
    if options.against:
        from toolkit.cli.against import compare_with_codecs

        for path in compare_with_codecs(run_folders(options.runs), options, _out(options)):
            print(printable(str(path)))
        return 0
    rows = _rows(run_folders(options.runs), options)
    notes([*unequal_data(rows), *unequal_rates(rows), *unequal_counts(rows)])
    out = _out(options)
    header, cells = _cells(rows)
    counts = dict.fromkeys(str(row.metrics.get("examples")) for row in rows)
    table(f"{options.split} split, {' or '.join(counts)} examples", header, cells)
    for path in _write(out, rows, options.split):
        print(printable(str(path)))
    return 0


def _check(options: CompareOptions) -> None:
    """ToolkitError for an option of comparing with codecs where there are none."""
    given = {"files": options.files, "prior": options.prior, "condition": options.condition}
    for name, value in {**given, "lossless": options.lossless}.items():
        if value and not options.against:
            raise ToolkitError(
                f"{name} is for comparing with everyday codecs: add against=[…], such as against=[png,jpeg]"
            )


def run_folders(words: Sequence[str]) -> list[Path]:
    """The runs that the words name, once each; those inside a folder in the order of their names, 2 before 10."""
    from toolkit import hub

    places = [hub.local_copy(word, hub.RUN) if hub.is_reference(word) else Path(word) for word in words]
    folders = [folder for place in places for folder in (_inside(place) or [place])]
    return list({folder.resolve(): folder for folder in folders}.values())


def _inside(folder: Path) -> list[Path]:
    """The runs of a folder that is not a run itself."""
    if (folder / "config.yaml").is_file():
        return []
    runs = [path.parent for path in folder.glob("*/config.yaml") if not path.parent.name.startswith(".")]
    return sorted(runs, key=lambda run: _natural(run.name))


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part or 0), "") if i % 2 else (0, part) for i, part in enumerate(re.split(r"(\d+)", name))]


def _rows(folders: Sequence[Path], options: CompareOptions) -> list[Row]:
    """A row for each run that can be opened and measured, the fewest bits per dim first; ToolkitError for none."""
    from toolkit.blame import blame
    from toolkit.cli.differences import labels
    from toolkit.runs.folder import Run

    opened = []
    for folder in folders:
        try:
            run = Run.open(folder)
            metrics = _saved(run, options) or _measured(run, options)
            opened += [(folder, *row) for row in _per_prior(run, metrics)]
        except ToolkitError as e:
            notes([f"{folder} is left out: {e}"])
        except Exception as e:  # whatever is wrong with one run, the others can be compared
            notes([f"{folder} is left out: {blame(e)}"])
    if not opened:
        raise ToolkitError("none of these runs can be compared")
    names = labels(
        [config.values() for _, config, _ in opened], [Run(folder.resolve()).title for folder, _, _ in opened]
    )
    return sorted((Row(*run, name) for run, name in zip(opened, names, strict=True)), key=_order)


def _per_prior(run: Run, metrics: dict[str, Any]) -> list[tuple[RunConfig, dict[str, Any]]]:
    """The run's configuration and metrics; where several priors are trained, those with each of them."""
    config, costs = run.config(), metrics.get("priors", {})
    trained = [name for name in costs if name in run.priors()]
    if len(trained) < 2:
        return [(config, metrics)]
    rows = []
    for name in trained:
        own = run.prior_config(name)
        changed = replace(
            config, prior=own.prior, prior_conditions=own.prior_conditions, prior_trainer=own.prior_trainer
        )
        rows.append((changed, {**metrics, "prior": name, **costs[name]}))
    return rows


def _order(row: Row) -> tuple[bool, float, float]:
    bits, psnr = row.metrics.get("bits_per_dim"), row.metrics.get("psnr")
    return bits is None, bits or 0.0, -(psnr or 0.0)


def _saved(run: Run, options: CompareOptions) -> dict[str, Any] | None:
    """A run's evaluation.json, if it is of this split, enough examples and the checkpoints that are opened."""
    from toolkit.runs.chosen import chosen_step
    from toolkit.runs.plain import read_json
    from toolkit.scoring import prior_steps

    path = next((p for p in (run.results / NAME, run.path / NAME) if p.is_file()), run.path / NAME)
    if not path.is_file():
        return None
    split, examples = options.split, options.examples or 0
    wanted = (split, chosen_step(run.autoencoder, options.checkpoint), prior_steps(run))
    try:
        saved: dict[str, Any] = read_json(path)
        if (saved["split"], saved["step"], saved["prior_steps"]) == wanted and saved["examples"] >= examples:
            return saved
        subject = f"split={saved['split']}, {saved['examples']} examples and step {saved['step']}"
        why = f"is of {subject}, not of split={split}, {examples or 'all'} examples and the checkpoints that are opened"
    except (OSError, ValueError, KeyError, TypeError):
        why = "cannot be read"
    notes([f"{path} {why}: evaluating again"])
    return None


def _measured(run: Run, options: CompareOptions) -> dict[str, Any]:
    """Evaluates a run as ``toolkit evaluate`` does."""
    from toolkit.build import build_metrics
    from toolkit.cli.files import build_dataset_of
    from toolkit.model import load
    from toolkit.scoring import measure

    model = load(run.path, options.device, checkpoint=options.checkpoint)
    metrics = build_metrics(model.config, model.autoencoder)
    dataset = build_dataset_of(model, {})
    reading = options.split, options.examples, options.batch_size, options.workers
    measured = measure(model, dataset, metrics, *reading)
    notes([f"{run.path}: {notice}" for notice in measured.notices])
    return measured.metrics


def _cells(rows: Sequence[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and cells: the columns that some run has a metric for."""
    shown = {head: name for head, name in COLUMNS.items() if any(name in row.metrics for row in rows)}
    cells = [(row.label, *(_cell(row.metrics.get(name)) for name in shown.values())) for row in rows]
    return ("run", *shown), cells


def _cell(value: Any) -> str:
    return number(value) if isinstance(value, int | float) else NONE


def _out(options: CompareOptions) -> Path:
    if options.out:
        return Path(options.out)
    first = Path(options.runs[0])
    return first if len(options.runs) == 1 and _inside(first) else Path("outputs/compare")


def _write(out: Path, rows: Sequence[Row], split: str) -> list[Path]:
    """The comparison as JSON, as Markdown and as a picture; the files that were written."""
    from toolkit.writing import write_into, write_text

    runs = [{"run": str(row.run), "label": row.label, "metrics": row.metrics} for row in rows]
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "compare.json", json.dumps({"split": split, "runs": runs}, indent=1, ensure_ascii=False))
        write_text(out / "compare.md", markdown(*_cells(rows)))
        pictures = write_into(out, partial(_plot, [_point(row) for row in rows]))
    except OSError as e:
        raise ToolkitError(f"out={out}: {e.strerror or e}") from e
    return [out / "compare.json", out / "compare.md", *pictures]


def _plot(points: list[Any], folder: Path) -> list[Path]:
    from toolkit.plots.comparison import plot_comparison

    return [folder / "compare.png"] if plot_comparison(folder / "compare.png", points) else []


def _point(row: Row) -> Any:
    from toolkit.plots.comparison import Point

    quantizer, metrics = row.config.quantizer.name, row.metrics
    label = " ".join(word for word in row.label.split(" ") if word != f"quantizer={quantizer}")
    return Point(label, quantizer, *(metrics.get(n) for n in ("code_bits_per_dim", "data_bits_per_dim", "psnr")))


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, the first column text and the others numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(printable(cell).replace('|', '¦') for cell in line)} |\n" for line in lines)
