"""Checkpoints: checked when read, never unpickled; ``toolkit.runs.saving`` writes them.

A checkpoint is a folder ``step-00001000/`` with ``model.safetensors`` (weights and buffers), ``state.safetensors``
(weight averages, optimizer, float16's scale of the loss, random number generators) and ``state.json`` (format, step,
the caller's facts, the sha256 of the other two, and a checksum of all this). The other two may be in parts, of as many
ranks as wrote it (see ``toolkit.runs.parts``); it opens as any other does.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from shlex import quote
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from toolkit.errors import ToolkitError
from toolkit.optimization import ADAM, MOMENTUM, Optimization
from toolkit.part_names import names_of
from toolkit.runs.formats import current_tensor, format_of
from toolkit.runs.parts import each_joined, joined_shapes
from toolkit.runs.plain import read_json
from toolkit.runs.random_state import LARGEST_RANDOM, set_random_state
from toolkit.runs.tensors import (
    DamagedFileError,
    OversizedFileError,
    Shape,
    check_fit,
    check_safetensors,
    sha256,
)
from toolkit.sharding import shard_like

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
        return str(_weights_hash_of(self.facts))

    def files(self) -> list[Path]:
        """All that it consists of."""
        return [*self._paths(MODEL), *self._paths(STATE), self.path / FACTS]

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
        return {self._current(name): shape for name, shape in joined_shapes(self._paths(file)).items()}

    def _tensors(
        self, file: str, prefix: str = "", like: Mapping[str, Tensor] = MappingProxyType({})
    ) -> dict[str, Tensor]:
        """A file's tensors, under today's names, that begin with the prefix; shards where ``like`` has such."""
        paths = self._paths(file)
        names = [name for name in joined_shapes(paths) if self._current(name).startswith(prefix)]
        current = ((self._current(name), tensor) for name, tensor in each_joined(paths, names))
        return {name: shard_like(tensor, like.get(name)) for name, tensor in current}

    def _paths(self, file: str) -> list[Path]:
        """A file, or its parts."""
        return [self.path / name for name in names_of(file, self.facts["sha256"])]

    def _current(self, name: str) -> str:
        return current_tensor(name, self.facts.get("format", 0))


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
    for file in (MODEL, STATE):
        names = names_of(file, hashes)
        for name in names:
            _check_written(path / name, hashes.get(name))
        joined_shapes([path / name for name in names])
    return Checkpoint(path, step, facts)


def _facts(path: Path) -> dict[str, Any]:
    """What ``state.json`` says. DamagedFileError where that is not what was written, as far as it can tell."""
    try:
        facts = dict(read_json(path / FACTS))
    except (OSError, ValueError, TypeError) as e:
        raise DamagedFileError(f"{FACTS}: {e}") from e
    written = facts.pop(CHECKSUM, None)  # checkpoints of before have none
    if written is not None and written != checksum(facts):
        raise DamagedFileError(f"{FACTS} is not what was written")
    return facts


def checksum(facts: dict[str, Any]) -> str:
    """Of what ``state.json`` says, but for this."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _weights_hash(path: Path) -> str | None:
    """Of the weights that a damaged checkpoint had; None where it does not say so any more."""
    try:
        return _weights_hash_of(_facts(path))
    except (DamagedFileError, KeyError, TypeError):
        return None


def _weights_hash_of(facts: Mapping[str, Any]) -> str:
    """The hash of the weights' file, or of the hashes of its parts."""
    hashes = dict(facts["sha256"])
    parts = [str(hashes[name]) for name in names_of(MODEL, hashes)]
    return parts[0] if len(parts) == 1 else hashlib.sha256(" ".join(parts).encode()).hexdigest()


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
