"""What a page says of a run: read from its folder alone, without its parts and without any weights."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from toolkit.errors import ToolkitError
from toolkit.given import described
from toolkit.page.configuration import Changes, Setting, changes, settings
from toolkit.page.curves import Chart, shown, stages_of
from toolkit.page.media import BUDGET, Media, media_of
from toolkit.runs.best import Best, read_best
from toolkit.runs.folder import Run
from toolkit.runs.plain import read_json, write_yaml

TAIL = 1 << 20
"""Bytes of the run's log that are read, from its end."""
NOTED_AT = re.compile(r"^at step [\d,]+ ")
"""How a note of a validation begins."""

HEADLINES = {
    "bits_per_dim": "bits per dim",
    "nll": "nats per example",
    "psnr": "PSNR, dB",
    "nmse": "error, of the variance",
    "rate": "bits of codes",
    "usage": "codebook in use",
    "perplexity": "perplexity",
}
"""Metrics that stand at the top, in words; at most ``MOST`` that there are."""
MOST = 6


class Table(NamedTuple):
    """Cells as text; numbers stand to the right."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


class Contents(NamedTuple):
    """One run."""

    title: str
    sentence: str
    headlines: list[tuple[str, str]]
    """Value and what it is."""
    warnings: list[str]
    stages: dict[str, list[Chart]]
    media: Media
    tables: list[Table]
    changes: Changes | None
    settings: list[Setting]
    config: str
    """All of it, as YAML."""
    log: list[str]
    """Its last lines."""


def contents_of(run: Run, budget: int = BUDGET) -> Contents:
    """ToolkitError where the folder's configuration cannot be read; whatever else is missing is left out."""
    config, title = run.config_values(), run.title
    evaluation = evaluation_of(run)
    log = list(_log(run.path / "log.txt"))
    warnings, log = _warnings(log), log[-200:]
    folders = {"autoencoder": run.autoencoder, **{f"prior-{name}": run.prior(name) for name in run.priors()}}
    best = {stage: one for stage, folder in folders.items() if (one := read_best(folder))}
    return Contents(
        title,
        _sentence(run),
        _headlines(evaluation or _last_validation(run)),
        warnings,
        stages_of({title: run.log}, best),
        media_of(run, budget),
        [*_measured(evaluation), *_checkpoints(folders, best), *_provenance(run)],
        changes(config),
        settings(config),
        write_yaml(config),
        log,
    )


def evaluation_of(run: Run) -> dict[str, Any]:
    """What ``toolkit evaluate`` measured; empty where it was never asked or cannot be read."""
    for folder in (run.results, run.path):
        try:
            values = read_json(folder / "evaluation.json")
        except (OSError, ValueError):
            continue
        if isinstance(values, dict):
            return values
    return {}


def _sentence(run: Run) -> str:
    try:
        return described(*run.spec())
    except ToolkitError:
        return "a run that has no data yet"


def _last_validation(run: Run) -> dict[str, Any]:
    """The newest metrics of validation."""
    found: dict[str, Any] = {}
    for line in run.log:
        if line["split"] == "val":
            found.update(line)
    return found


def _headlines(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    known = [(shown(float(metrics[name])), words) for name, words in HEADLINES.items() if _is_number(metrics.get(name))]
    return known[:MOST]


def _measured(metrics: Mapping[str, Any]) -> Iterator[Table]:
    rows = [(name, shown(float(value))) for name, value in metrics.items() if _is_number(value)]
    if rows:
        yield Table(f"Metrics of the {metrics.get('split', '')} split", ("metric", "value"), rows)
    priors = metrics.get("priors")
    if isinstance(priors, Mapping) and all(isinstance(row, Mapping) for row in priors.values()):
        columns = list(dict.fromkeys(str(name) for row in priors.values() for name in row))
        cells = [(str(name), *(_cell(row.get(column)) for column in columns)) for name, row in priors.items()]
        yield Table("Priors", ("prior", *columns), cells)


def _cell(value: Any) -> str:
    return shown(float(value)) if _is_number(value) else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _checkpoints(folders: Mapping[str, Path], best: Mapping[str, Best]) -> Iterator[Table]:
    """Those that are kept, the newest first."""
    rows = list[tuple[str, str, str]]()
    for stage, folder in folders.items():
        steps = sorted(
            (int(path.name[5:]) for path in folder.glob("step-*") if path.name[5:].isdecimal()), reverse=True
        )
        for step in steps:
            chosen = stage in best and best[stage].step == step
            said = [f"best: {best[stage].figure} {shown(best[stage].value)}"] if chosen else []
            rows.append((stage, f"{step:,}", ", ".join([*said, *(["last"] if step == steps[0] else [])])))
    if rows:
        yield Table("Checkpoints", ("stage", "step", ""), rows)


def _provenance(run: Run) -> Iterator[Table]:
    rows = [
        (key, str(part["name"]), f"{part['distribution']} {part['version']}", _cell(part.get("parameters")))
        for key, part in run.components().items()
    ]
    if rows:
        yield Table("Parts", ("part", "name", "from", "parameters"), rows)


def _log(path: Path) -> Iterator[str]:
    """The lines at the end of a text file."""
    try:
        if not path.is_file():
            return
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - TAIL))
            lines = file.read(TAIL).decode("utf-8", errors="replace").splitlines()
    except OSError:
        return
    yield from lines[1:] if size > TAIL else lines


def _warnings(lines: list[str]) -> list[str]:
    """The notes of a log, without their times, once each: of those that differ in the step alone, the newest."""
    parts = [line.partition(" note: ") for line in lines]
    return list({NOTED_AT.sub("", text): text for _, note, text in parts if note}.values())
