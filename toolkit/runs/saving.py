"""Checkpoints are written whole or not at all; see ``toolkit.runs.checkpoint`` for what is in them."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from toolkit.distributed import on_rank0, raise_together, rank
from toolkit.errors import ToolkitError
from toolkit.optimization import Optimization
from toolkit.runs.checkpoint import CHECKSUM, FACTS, MODEL, STATE, checksum, found
from toolkit.runs.formats import FORMAT
from toolkit.runs.gathered import write_gathered
from toolkit.runs.parts import write_parts
from toolkit.runs.random_state import random_state
from toolkit.runs.tensors import flush_folder, sha256, write_tensors
from toolkit.sharding import is_sharded
from toolkit.writing import write_text


def save(
    folder: Path,
    optimization: Optimization,
    facts: dict[str, Any],
    metrics: dict[str, Tensor] | None = None,
    *,
    keep: int,
    spared: int | None = None,
    whole: bool = True,
) -> None:
    """Writes a checkpoint under a temporary name, flushes it, renames it, and deletes all but the newest ``keep`` and
    that of the step ``spared``.

    ``facts`` and ``metrics`` are stored for the caller. All ranks take part: rank 0 writes, with the states of all
    their random number generators, and what they have shards of as a whole, or, where that is not wanted, each rank
    its own shards.
    """
    tensors = {**random_state(), **{f"metrics.{name}": value for name, value in (metrics or {}).items()}}
    files = {MODEL: optimization.module.state_dict(), STATE: {**optimization.state(), **tensors}}
    final = folder / _name(optimization.step)
    temporary = folder / f".{final.name}"
    if is_sharded(optimization.module) and not whole:
        on_rank0(partial(_conclude, temporary, final, facts, _write_own(temporary, files)))
    elif is_sharded(optimization.module):
        _write_shards(temporary, files)
        on_rank0(partial(_conclude, temporary, final, facts))
    else:
        on_rank0(partial(_save, temporary, final, files, facts))
    on_rank0(partial(_prune, folder, final, keep, spared))


def _save(temporary: Path, final: Path, files: dict[str, dict[str, Tensor]], facts: dict[str, Any]) -> None:
    with _explained(temporary):
        _begin(temporary)
        for name, tensors in files.items():
            write_tensors(temporary / name, tensors)
    _conclude(temporary, final, facts)


def _write_shards(temporary: Path, files: dict[str, dict[str, Tensor]]) -> None:
    """Of a sharded module: all ranks gather each tensor, which rank 0 writes at once."""
    with raise_together(), _explained(temporary):
        if rank() == 0:
            _begin(temporary)
    for name, tensors in files.items():
        with _explained(temporary):
            write_gathered(temporary / name, tensors)


def _write_own(temporary: Path, files: dict[str, dict[str, Tensor]]) -> dict[str, str]:
    """Of a sharded module: each rank writes its shards; the hashes of the files. Nothing is left where one fails."""
    with raise_together(), _explained(temporary):
        if rank() == 0:
            _begin(temporary)
    try:
        with _explained(temporary, whole=False):
            return write_parts(temporary, files)
    except BaseException:
        if rank() == 0:  # once all have stopped writing
            shutil.rmtree(temporary, ignore_errors=True)
        raise


def _begin(temporary: Path) -> None:
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)


def _conclude(temporary: Path, final: Path, facts: dict[str, Any], hashes: dict[str, str] | None = None) -> None:
    """Writes the facts of a checkpoint whose tensors are written, and gives it its name; ``hashes``: of its parts."""
    with _explained(temporary):
        facts = {
            "format": FORMAT,
            "step": _step(final),
            **facts,
            "sha256": hashes or {name: sha256(temporary / name) for name in (MODEL, STATE)},
        }
        write_text(temporary / FACTS, json.dumps({**facts, CHECKSUM: checksum(facts)}, indent=1))
        if final.exists():
            shutil.rmtree(final)
        os.replace(temporary, final)
        flush_folder(final.parent)


@contextmanager
def _explained(temporary: Path, whole: bool = True) -> Iterator[None]:
    """ToolkitError, with what is kept, where a checkpoint cannot be written; nothing is left of a whole one."""
    try:
        yield
    except OSError as e:
        if whole:
            shutil.rmtree(temporary, ignore_errors=True)
        why = "no space is left on the disk" if e.errno == errno.ENOSPC else str(e)
        kept = [path.name for path in found(temporary.parent)]
        raise ToolkitError(
            f"the checkpoint of step {_step(temporary)} could not be written to {temporary.parent}: {why}\n"
            f"kept: {kept[-1] if kept else 'no checkpoint yet'}; fix it and continue with toolkit train run=DIR"
        ) from e


def _prune(folder: Path, saved: Path, keep: int, spared: int | None) -> None:
    for old in [path for path in found(folder) if path != saved][: -(keep - 1) or None]:
        if spared is None or old.name != _name(spared):
            shutil.rmtree(old)


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _step(path: Path) -> int:
    return int(path.name.rpartition("-")[2])
