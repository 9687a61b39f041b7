"""``toolkit report``: a run, or several side by side, as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.cli.arguments import parse
from toolkit.cli.outputs import require_file
from toolkit.errors import ToolkitError, printable


@dataclass(frozen=True)
class ReportOptions:
    """A run as one HTML page: curves of both stages, pictures as they developed, samples, sounds and films, metrics,
    configuration and notes.

    Everything is inside the file, at most 20 MB of it, and nothing is asked of a network: it can be mailed. Several
    runs, or a folder that holds them, such as a sweep's, become one page: a table, and their curves over one another.
    Metrics are those of toolkit evaluate, where it was asked; no weights are read. While a run is trained, toolkit
    watch shows the same.
    """

    runs: list[str] = field(default_factory=list, metadata={"help": "run folders, or folders of runs"})
    run: str | None = field(default=None, metadata={"help": "the run folder; the same as naming it alone"})
    out: Path | None = field(
        default=None, metadata={"help": "the file to write; null: report.html in the run, or in the folder of runs"}
    )


def main(args: list[str]) -> int:
    options = parse("report", ReportOptions, args)
    words = [*([options.run] if options.run else []), *options.runs]
    if not words:
        raise ToolkitError("no run: toolkit report run=DIR, or toolkit report RUNS… for several side by side")
    from toolkit.cli.compare import run_folders

    folders = run_folders(words)
    out = options.out or _out(words, folders)
    require_file(out)
    _write(out, _page(folders))
    print(printable(str(out)))
    return 0


def _page(folders: Sequence[Path]) -> str:
    from toolkit.cli.differences import labels
    from toolkit.page.comparison import comparison_of
    from toolkit.page.contents import contents_of
    from toolkit.page.media import BUDGET
    from toolkit.page.render import page_of, page_of_comparison
    from toolkit.runs.folder import Run

    runs = [Run.open(folder) for folder in folders]
    if len(runs) == 1:
        return page_of(contents_of(runs[0]))
    names = labels([run.config_values() for run in runs], [run.title for run in runs])
    contents = [
        contents_of(run, BUDGET // len(runs))._replace(title=name) for name, run in zip(names, runs, strict=True)
    ]
    return page_of_comparison(comparison_of(dict(zip(names, runs, strict=True))), contents)


def _out(words: Sequence[str], folders: Sequence[Path]) -> Path:
    from toolkit.page.write import NAME
    from toolkit.runs.folder import Run

    if len(folders) == 1:
        return Run.open(folders[0]).results / NAME
    return (Path(words[0]) if len(words) == 1 else Path("outputs", "compare")) / NAME


def _write(out: Path, text: str) -> None:
    from toolkit.writing import write_text

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, text)
    except OSError as e:
        raise ToolkitError(f"out={out}: {e.strerror or e}") from e
