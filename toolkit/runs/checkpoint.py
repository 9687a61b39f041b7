"""Checkpoints: written whole or not at all, checked when read, never unpickled.

A checkpoint is a folder ``step-00001000/`` with ``model.safetensors`` (weights and buffers), ``state.safetensors``
(weight averages, optimizer, float16's scale of the loss, random number generators) and ``state.json`` (format, step,
the caller's facts, the sha256 of the other two, and a checksum of all this).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from shlex import quote
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from toolkit.distributed import on_rank0, raise_together, rank
from toolkit.errors import ToolkitError
from toolkit.optimization import ADAM, MOMENTUM, Optimization
from toolkit.runs.formats import FORMAT, current_tensor, format_of
from toolkit.runs.gathered import write_gathered
from toolkit.runs.plain import read_json
from toolkit.runs.random_state import LARGEST_RANDOM, random_state, set_random_state
from toolkit.runs.tensors import (
    DamagedFileError,
    OversizedFileError,
    Shape,
    check_fit,
    check_safetensors,
    each_tensor,
    flush_folder,
    read_shapes,
    sha256,
    write_tensors,
)
from toolkit.sharding import is_sharded, shard_like
from toolkit.writing import write_text

MODEL, STATE, FACTS, CHECKSUM = "model.safetensors", "state.safetensors", "state.json", "checksum"
OPTIMIZATION = ("average.", "optimizer.", "loss_scale.")
"""What the names begin with of an optimization's own tensors."""
TRIES = 20
"""To read a checkpoint beside a training, which may delete it meanwhile."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are all there and as they were written."""

    path: Path
    step: int
    facts: dict[str, Any]

    @property
    def weights_hash(self) -> str:
        return str(self.facts["sha256"][MODEL])

    def shapes(self) -> dict[str, Shape]:
        """Shapes of the weights and buffers, by name."""
        return self._shapes(MODEL)

    def load_weights(self, module: nn.Module, *, averaged: bool) -> None:
        """Weights and buffers into a module of this structure; ``averaged`` takes the averages where there are any."""
        self.check_weights(module)
        module.load_state_dict(self.averaged() if averaged else self._tensors(MODEL, like=module.state_dict()))

    def averaged(self) -> dict[str, Tensor]:
        """Weights and buffers, the averages in place of the weights where there are any."""
        weights = self._tensors(MODEL)
        own = {f"average.{name}": Shape.of(tensor) for name, tensor in weights.items()}
        averages = {name: shape for name, shape in self._shapes(STATE).items() if name.startswith("average.")}
        check_fit({name: own[name] for name in own if name in averages}, averages, self.path)
        values = self._tensors(STATE, "average.")
        return weights | {name.removeprefix("average."): value for name, value in values.items()}

    def check_weights(self, module: nn.Module) -> None:
        """ToolkitError where the weights do not fit a module."""
        check_fit({name: Shape.of(t) for name, t in module.state_dict().items()}, self.shapes(), self.path)

    def load_state(self, optimization: Optimization) -> dict[str, Tensor]:
        """Restores all that a run needs to continue as if uninterrupted; returns the saved metrics.

        ToolkitError where the files do not fit the optimization's module.
        """
        self.load_weights(optimization.module, averaged=False)
        try:
            _check_state(self._shapes(STATE), optimization)
            state = self._tensors(STATE, like=_alike(optimization))
            optimization.load({k: v for k, v in state.items() if k.startswith(OPTIMIZATION)}, self.step)
            set_random_state(state)
        except (RuntimeError, ValueError, TypeError, LookupError) as e:
            raise ToolkitError(f"{self.path / STATE} is not this model's: {str(e).splitlines()[0]}") from e
        return {k.removeprefix("metrics."): v for k, v in state.items() if k.startswith("metrics.")}

    def _shapes(self, file: str) -> dict[str, Shape]:
        """Shapes of a file's tensors, under today's names."""
        return {self._current(name): shape for name, shape in read_shapes(self.path / file).items()}

    def _tensors(
        self, file: str, prefix: str = "", like: Mapping[str, Tensor] = MappingProxyType({})
    ) -> dict[str, Tensor]:
        """A file's tensors, under today's names, that begin with the prefix; shards where ``like`` has such."""
        names = [name for name in read_shapes(self.path / file) if self._current(name).startswith(prefix)]
        current = ((self._current(name), tensor) for name, tensor in each_tensor(self.path / file, names))
        return {name: shard_like(tensor, like.get(name)) for name, tensor in current}

    def _current(self, name: str) -> str:
        return current_tensor(name, self.facts.get("format", 0))


def save(
    folder: Path,
    optimization: Optimization,
    facts: dict[str, Any],
    metrics: dict[str, Tensor] | None = None,
    *,
    keep: int,
    spared: int | None = None,
) -> None:
    """Writes a checkpoint under a temporary name, flushes it, renames it, and deletes all but the newest ``keep`` and
    that of the step ``spared``.

    ``facts`` and ``metrics`` are stored for the caller. All ranks take part: rank 0 writes, with the states of all
    their random number generators, and what they have shards of as a whole.
    """
    tensors = {**random_state(), **{f"metrics.{name}": value for name, value in (metrics or {}).items()}}
    files = {MODEL: optimization.module.state_dict(), STATE: {**optimization.state(), **tensors}}
    final = folder / _name(optimization.step)
    temporary = folder / f".{final.name}"
    if is_sharded(optimization.module):
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


def _begin(temporary: Path) -> None:
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)


def _conclude(temporary: Path, final: Path, facts: dict[str, Any]) -> None:
    """Writes the facts of a checkpoint whose tensors are written, and gives it its name."""
    with _explained(temporary):
        facts = {
            "format": FORMAT,
            "step": _step(final),
            **facts,
            "sha256": {name: sha256(temporary / name) for name in (MODEL, STATE)},
        }
        write_text(temporary / FACTS, json.dumps({**facts, CHECKSUM: _checksum(facts)}, indent=1))
        if final.exists():
            shutil.rmtree(final)
        os.replace(temporary, final)
        flush_folder(final.parent)


@contextmanager
def _explained(temporary: Path) -> Iterator[None]:
    """ToolkitError, with what is kept, where a checkpoint cannot be written; nothing is left of it."""
    try:
        yield
    except OSError as e:
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


def newest(folder: Path, notices: list[str]) -> Checkpoint | None:
    """The newest whole checkpoint of a folder; None where there is none.

    A torn or damaged one is skipped with a notice. ToolkitError where none is whole, and where a file that is just as
    it was written is not safetensors or has an inconsistent header.
    """
    for _ in range(TRIES):
        paths, damaged = found(folder), list[str]()
        for path in reversed(paths):
            try:
                checkpoint = open_whole(path)
            except DamagedFileError as e:
                damaged.append(f"{path} is damaged ({e}): falling back to the checkpoint before it")
                continue
            notices += damaged
            return checkpoint
        if paths == found(folder):
            break  # else a training has deleted them meanwhile
    if paths:
        raise ToolkitError(
            f"{folder}: none of its {len(paths)} checkpoints is whole ({damaged[0]})\n"
            f"put a copy of one back, or remove {folder} and start again with toolkit train run={_quoted_run(folder)}"
        )
    return None


def read_newest(open_newest: Callable[[], Checkpoint], read: Callable[[Checkpoint], Result]) -> Result:
    """What is read of the newest checkpoint, or of a newer one where a training deletes it meanwhile."""
    for left in reversed(range(TRIES)):
        checkpoint = open_newest()
        try:
            return read(checkpoint)
        except FileNotFoundError:
            if not left:
                raise
    raise AssertionError


def damaged_with(folder: Path, weights_hash: str) -> Path | None:
    """The damaged checkpoint, newer than any whole one, that had these weights, or that no longer says which it had."""
    for path in reversed(found(folder)):
        try:
            open_whole(path)
        except DamagedFileError:
            if _weights_hash(path) in (None, weights_hash):
                return path
        else:
            return None
    return None


def set_aside(path: Path) -> None:
    """Renames a damaged checkpoint, so that it is neither opened nor counted among those kept."""
    other = path.with_name(f"{path.name}.damaged")
    shutil.rmtree(other, ignore_errors=True)
    path.rename(other)


def found(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    return sorted(p for p in folder.glob("step-*") if p.is_dir() and p.name[5:].isdecimal())


def open_whole(path: Path) -> Checkpoint:
    facts = _facts(path)
    try:
        hashes, step, written = dict(facts["sha256"]), int(facts["step"]), facts.get("format")
    except (ValueError, KeyError, TypeError, OverflowError) as e:
        raise DamagedFileError(f"{FACTS}: {e}") from e
    if step != int(path.name[5:]):
        raise DamagedFileError(f"{FACTS} is of step {step}")
    format_of(written, path / FACTS)
    for name in (MODEL, STATE):
        _check_written(path / name, hashes.get(name))
    return Checkpoint(path, step, facts)


def _facts(path: Path) -> dict[str, Any]:
    """What ``state.json`` says. DamagedFileError where that is not what was written, as far as it can tell."""
    try:
        facts = dict(read_json(path / FACTS))
    except (OSError, ValueError, TypeError) as e:
        raise DamagedFileError(f"{FACTS}: {e}") from e
    checksum = facts.pop(CHECKSUM, None)  # checkpoints of before have none
    if checksum is not None and checksum != _checksum(facts):
        raise DamagedFileError(f"{FACTS} is not what was written")
    return facts


def _checksum(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _weights_hash(path: Path) -> str | None:
    """Of the weights that a damaged checkpoint had; None where it does not say so any more."""
    try:
        return str(_facts(path)["sha256"][MODEL])
    except (DamagedFileError, KeyError, TypeError):
        return None


def _check_written(path: Path, written: str | None) -> None:
    """Checks a file against its hash: where that matches, what is wrong with it was written so, not damaged."""
    try:
        check_safetensors(path)
    except (DamagedFileError, ToolkitError) as e:
        if isinstance(e, OversizedFileError) or not path.is_file() or sha256(path) != written:
            raise (e if isinstance(e, DamagedFileError) else _changed(path)) from e
        if isinstance(e, DamagedFileError):
            raise ToolkitError(f"{path} has an inconsistent header: its hash is right, but {e}") from e
        raise
    if sha256(path) != written:
        raise _changed(path)


def _changed(path: Path) -> DamagedFileError:
    return DamagedFileError(f"{path.name} is not what was written")


def _quoted_run(folder: Path) -> str:
    return quote(str(folder.parent if folder.parent.name != "priors" else folder.parent.parent))


def _alike(optimization: Optimization) -> dict[str, Tensor]:
    """By the name of a tensor of the state, the parameter that it is sharded as."""
    parameters = optimization.parameters.items()
    kinds = ("average", *(f"optimizer.{moment}" for moment in (ADAM | MOMENTUM) - {"step"}))
    return {f"{kind}.{name}": parameter for name, parameter in parameters for kind in kinds}


def _check_state(saved: Mapping[str, Shape], optimization: Optimization) -> None:
    """ValueError naming a tensor that no optimization of this module saves, or not in this shape and type."""
    own = {name: Shape.of(parameter) for name, parameter in optimization.module.named_parameters()}
    number = Shape((), torch.float32)
    for name, shape in saved.items():
        kind, _, key = name.partition(".")
        moment, _, parameter = key.partition(".")
        wanted = {
            "average": own.get(key),
            "optimizer": number if moment == "step" else own.get(parameter),
            "loss_scale": number,
            "metrics": Shape((), torch.int64) if key == "count" else number,
            "random": shape if prod(shape.shape) <= LARGEST_RANDOM else None,
        }
        if shape != wanted.get(kind):
            raise ValueError(f"it holds {name} {shape.shape} of {str(shape.dtype).removeprefix('torch.')}")
