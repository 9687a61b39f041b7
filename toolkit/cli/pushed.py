"""What of a run is pushed: what opens it, without what is only its owner's."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from toolkit.cli.card import write_card
from toolkit.config import RunConfig
from toolkit.errors import ToolkitError
from toolkit.hub import Reference
from toolkit.model import Model
from toolkit.runs.best import read_best
from toolkit.runs.checkpoint import Checkpoint, found, newest
from toolkit.runs.chosen import choose, chosen_step
from toolkit.runs.folder import ADOPTED, Run, write_config
from toolkit.runs.plain import read_json
from toolkit.runs.signature import with_hash, without_hash
from toolkit.writing import write_text

_TEXTS = ("LICENSE*", "LICENCE*", "NOTICE*", "COPYING*")
_LOCAL = re.compile(r"[/~\\]|[A-Za-z]:[\\/]|file:")
"""What a path begins with that is somebody's own."""


def collect(model: Model, folder: Path, reference: Reference, license: str, pipeline: str, codes: bool) -> list[str]:
    """Writes it, with a card, into an empty folder; returns what was left out or changed, in words.

    ToolkitError where a checkpoint is damaged, or a prior cannot be opened.
    """
    _check_whole(model)
    changed = _copy_run(model, folder)
    for text in (path for pattern in _TEXTS for path in sorted(model.run.path.glob(pattern))):
        shutil.copyfile(text, folder / text.name)
    figures, stale = _figures(model)
    if figures:
        values, paths = without_paths(figures)
        changed += [f"evaluation.json: {path}" for path in paths]
        write_text(folder / "evaluation.json", json.dumps(values, indent=1))
    if codes and model.run.codes.is_dir():
        shutil.copytree(model.run.codes, folder / "codes", ignore=shutil.ignore_patterns(".*"))
    write_card(folder / "README.md", model, reference, license, pipeline, figures)
    return [*stale, *changed, *_left_out(model.run, codes)]


def _check_whole(model: Model) -> None:
    """Opens all of it; what only falls back to an older checkpoint is damaged."""
    for run in _bases(model):
        for stage in (run.run.autoencoder, *map(run.run.prior, run.run.priors())):
            last, whole, best = found(stage)[-1], newest(stage, []), read_best(stage)
            if best is not None and chosen_step(stage) == best.step:
                last, whole = stage / f"step-{best.step:08d}", choose(stage, None, [])
            if whole is None or whole.path != last:
                raise ToolkitError(f"{last} is damaged: continue the run, which writes it again, before it is pushed")
    for name in model.run.priors():
        model.prior(name)


def _bases(model: Model) -> Iterator[Model]:
    while True:
        yield model
        if model.base is None:
            return
        model = model.base


def _copy_run(model: Model, folder: Path) -> list[str]:
    """Configurations, specs and checkpoints, of its bases, too; returns which paths were cut."""
    run = model.run
    changed = _copy_config(model.config, folder, "config.yaml")
    for name in ("components.json", "spec.json", "metrics.jsonl"):
        if (run.path / name).is_file():
            shutil.copyfile(run.path / name, folder / name)
    changed += _copy_origin(run, folder)
    _copy_checkpoint(model.checkpoint, folder / "autoencoder")
    for name in run.priors():
        to = folder / "priors" / name
        to.mkdir(parents=True)
        changed += _copy_config(run.prior_config(name), to, f"priors/{name}/config.yaml")
        checkpoint = choose(run.prior(name), None, [])
        assert checkpoint
        _copy_checkpoint(checkpoint, to)
    if model.base is not None:
        (folder / "base").mkdir()
        changed += [f"base/{words}" for words in _copy_run(model.base, folder / "base")]
    return changed


def _copy_config(config: RunConfig, folder: Path, title: str) -> list[str]:
    init = config.init if config.init and not _LOCAL.match(config.init) else None
    dropped = [] if init == config.init else [f"{title}: init={config.init} is left out"]
    values, paths = without_paths(replace(config, init=init).values())
    write_config(folder, RunConfig.read(values))
    return [*dropped, *(f"{title}: {path}" for path in paths)]


def adopted_license(run: Run) -> str | None:
    """The licence of the weights that a run was adopted from, where it says so."""
    stated = _origin(run).get("license")
    return stated if isinstance(stated, str) and stated else None


def _copy_origin(run: Run, folder: Path) -> list[str]:
    values, paths = without_paths(_origin(run))
    if values:
        write_text(folder / ADOPTED, json.dumps(with_hash(values), indent=1))
    return [f"{ADOPTED}: {path}" for path in paths]


def _origin(run: Run) -> dict[str, Any]:
    """What an adopted run says of its weights; empty for any other. ToolkitError where that is damaged."""
    path = run.path / ADOPTED
    if not path.is_file():
        return {}
    try:
        return dict(without_hash(read_json(path)))
    except (OSError, ValueError, TypeError) as e:
        raise ToolkitError(f"{path} cannot be read: {e}") from e


def _copy_checkpoint(checkpoint: Checkpoint, stage: Path) -> None:
    to = stage / checkpoint.path.name
    to.mkdir(parents=True)
    for path in checkpoint.files():
        shutil.copyfile(path, to / path.name)


def without_paths(values: Any, key: str = "") -> tuple[Any, list[str]]:
    """Plain values whose local paths are cut to their last word; and what was cut, in words."""
    if isinstance(values, dict):
        cut = {name: without_paths(value, f"{key}.{name}" if key else str(name)) for name, value in values.items()}
        return {name: value for name, (value, _) in cut.items()}, [path for _, paths in cut.values() for path in paths]
    if isinstance(values, list | tuple):
        items = [without_paths(value, f"{key}[{i}]") for i, value in enumerate(values)]
        return [value for value, _ in items], [path for _, paths in items for path in paths]
    if not isinstance(values, str) or not _LOCAL.match(values) or len(values) == 1:
        return values, []
    last = PureWindowsPath(values).name if "\\" in values else PurePosixPath(values).name
    return last.lstrip("~"), [f"{key}={values} is pushed as {last.lstrip('~')!r}"]


def _figures(model: Model) -> tuple[dict[str, Any], list[str]]:
    """``evaluation.json``, where it is of these checkpoints; and what to know where it is not."""
    path = model.run.path / "evaluation.json"
    if not path.is_file():
        return {}, [f"the card has no figures: toolkit evaluate run={model.run.path} measures them"]
    try:
        values = dict(read_json(path))
        current = (values["step"], values["prior_steps"]) == (model.checkpoint.step, model.prior_steps)
    except (OSError, ValueError, KeyError, TypeError):
        return {}, [f"{path} cannot be read: the card has no figures"]
    if not current:
        return {}, [f"{path} is of other checkpoints: the card has no figures until toolkit evaluate measures these"]
    return values, []


def _left_out(run: Run, codes: bool) -> list[str]:
    """Files of the run that stay here."""
    why = {
        "log.txt": "it may name local paths",
        "data.json": "it names the files of the data",
        "samples": "pictures may show the data",
        "codes": "they are the data's; codes=true pushes them",
    }
    return [
        f"{name} is left out: {why[name]}"
        for name in why
        if (run.path / name).exists() and not (codes and name == "codes")
    ]
