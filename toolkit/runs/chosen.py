"""Which of a stage's checkpoints is opened: the best, the last, or that of a step."""

from __future__ import annotations

from pathlib import Path

from toolkit.errors import ToolkitError
from toolkit.runs.best import read_best
from toolkit.runs.checkpoint import Checkpoint, found, newest, open_whole
from toolkit.runs.tensors import DamagedFileError

BEST, LAST = "best", "last"


def choose(folder: Path, which: str | int | None, notices: list[str], key: str = "checkpoint") -> Checkpoint | None:
    """A whole checkpoint of a folder; None where there is none yet.

    ``which``: ``best``, ``last`` or a step; None: the best where one is kept, else the last. ``notices`` gets what to
    know of damaged ones. ToolkitError, which names the option ``key``, where the one that is asked for is not there or
    not whole.
    """
    if which == LAST:
        return newest(folder, notices)
    best = read_best(folder)
    if which is None and best is None:
        return newest(folder, notices)
    if which == BEST and best is None:
        trainer = f"{key.removesuffix('checkpoint')}trainer"
        raise ToolkitError(f"{key}={BEST}: {folder} keeps none: training keeps it with {trainer}.best=val/NAME")
    step = best.step if best is not None and which in (None, BEST) else _step(which, key)
    try:
        checkpoint = _at(folder, step, key)
    except (DamagedFileError, ToolkitError) as e:
        if which is not None and isinstance(e, ToolkitError):
            raise
        if which is not None:
            raise ToolkitError(f"{key}={which}: the checkpoint of step {step} in {folder} is damaged: {e}") from e
        if read_best(folder) != best:  # a training has just noted a better one
            return choose(folder, which, notices, key)
        notices.append(f"the best checkpoint ({best}) cannot be opened, so the last one is: {e}")
        return newest(folder, notices)
    return checkpoint


def which_it_is(checkpoint: Checkpoint, key: str = "checkpoint") -> list[str]:
    """What to know of a checkpoint that is not its stage's last."""
    folder = checkpoint.path.parent
    last, best = found(folder)[-1:], read_best(folder)
    if not last or last == [checkpoint.path]:
        return []
    why = f", its best: {best}" if best is not None and best.step == checkpoint.step else ""
    return [f"opened at {folder.name}/{checkpoint.path.name}{why}; {key}={LAST} is {last[0].name}"]


def chosen_step(folder: Path, which: str | int | None = None) -> int | None:
    """The step that ``choose`` would give, as the folder's names say; None where there is none."""
    steps = [int(path.name[5:]) for path in found(folder)]
    best = read_best(folder)
    if best is not None and which in (None, BEST) and best.step in steps:
        return best.step
    if which in (None, BEST, LAST):
        return steps[-1] if steps else None
    return _step(which, "checkpoint")


def step_with(folder: Path, weights_hash: str) -> int | None:
    """The step of the whole checkpoint that has these weights; None where there is none any more."""
    for path in reversed(found(folder)):
        try:
            checkpoint = open_whole(path)
        except (DamagedFileError, ToolkitError, FileNotFoundError):
            continue
        if checkpoint.weights_hash == weights_hash:
            return checkpoint.step
    return None


def _step(which: str | int | None, key: str) -> int:
    text = str(which)
    if not text.isascii() or not text.isdecimal():
        raise ToolkitError(f"{key}={which}: give {BEST}, {LAST} or a step")
    return int(text[:20])


def _at(folder: Path, step: int, key: str) -> Checkpoint:
    paths = {int(path.name[5:]): path for path in found(folder)}
    if step not in paths:
        have = ", ".join(map(str, paths)) or "none"
        raise ToolkitError(f"{key}={step}: {folder} keeps no checkpoint of step {step} (kept: {have})")
    return open_whole(paths[step])
