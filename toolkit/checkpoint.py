"""Checkpoints: whole or not at all, checked when read, never unpickled.

A checkpoint is a folder ``step-00001000/`` with ``model.safetensors`` (weights and buffers), ``state.safetensors``
(weight averages, optimizer, random number generators) and ``state.json`` (step, what else the caller notes, and the
sha256 of the other two).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from toolkit.distributed import first, gathered, rank
from toolkit.errors import ToolkitError
from toolkit.optimization import Optimization
from toolkit.plain import read_json

MODEL, STATE, FACTS = "model.safetensors", "state.safetensors", "state.json"
LARGEST_HEADER = 1 << 24
"""Bytes. The format allows more, which would take gigabytes to parse; a model's takes a hundred per tensor."""
LARGEST_RANDOM = 1 << 16
"""Bytes of a random number generator's state."""
TYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "F32": torch.float32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
}
"""By the format's names."""


class DamagedFile(Exception):
    """A file torn or changed since it was written."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found whole."""

    path: Path
    step: int
    facts: dict[str, Any]

    @property
    def weights_hash(self) -> str:
        return str(self.facts["sha256"][MODEL])

    def shapes(self) -> dict[str, Shape]:
        """Of the weights and buffers, by name."""
        return read_shapes(self.path / MODEL)

    def load_weights(self, module: nn.Module, *, averaged: bool) -> None:
        """Weights and buffers into a module of the same make; ``averaged`` takes the averages where there are any."""
        self.check_weights(module)
        weights = read_tensors(self.path / MODEL, self.shapes())
        if averaged:
            own = {f"average.{name}": Shape.of(tensor) for name, tensor in module.state_dict().items()}
            held = read_shapes(self.path / STATE)
            averages = {name: shape for name, shape in held.items() if name.startswith("average.")}
            check_fit({name: own[name] for name in own if name in averages}, averages, self.path)
            made = read_tensors(self.path / STATE, averages)
            weights.update({name.removeprefix("average."): value for name, value in made.items()})
        module.load_state_dict(weights)

    def check_weights(self, module: nn.Module) -> None:
        """ToolkitError where the weights are not a module's of this make."""
        check_fit({name: Shape.of(t) for name, t in module.state_dict().items()}, self.shapes(), self.path)

    def load_state(self, optimization: Optimization) -> dict[str, Tensor]:
        """All that a run needs to go on as if it had never stopped; gives back the figures that were saved.

        ToolkitError where that is not what was saved of a module of this make.
        """
        self.load_weights(optimization.module, averaged=False)
        held = read_shapes(self.path / STATE)
        try:
            _check_state(held, optimization)
            state = read_tensors(self.path / STATE, held)
            optimization.load({k: v for k, v in state.items() if k.startswith(("average.", "optimizer."))}, self.step)
            set_random_state(state)
        except (RuntimeError, ValueError, TypeError, LookupError) as e:
            raise ToolkitError(f"{self.path / STATE} is not this model's: {str(e).splitlines()[0]}") from e
        return {k.removeprefix("figures."): v for k, v in state.items() if k.startswith("figures.")}


class Shape(NamedTuple):
    """What is known of a tensor before it is read."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> Shape:
        return cls(tuple(tensor.shape), tensor.dtype)


def save(
    folder: Path,
    optimization: Optimization,
    facts: dict[str, Any],
    figures: dict[str, Tensor] | None = None,
    *,
    keep: int,
) -> None:
    """Writes a checkpoint aside, flushes it, renames it into place, and drops all but the newest ``keep``.

    ``facts`` and ``figures`` are what the caller wants to find again. All ranks take part: the first one writes, with
    the random numbers of them all.
    """
    beside = {**random_state(), **{f"figures.{name}": value for name, value in (figures or {}).items()}}
    first(partial(_save, folder, optimization, facts, beside, keep))


def _save(
    folder: Path, optimization: Optimization, facts: dict[str, Any], beside: dict[str, Tensor], keep: int
) -> None:
    step = optimization.step
    final, aside = folder / f"step-{step:08d}", folder / f".step-{step:08d}"
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        _write(aside / MODEL, optimization.module.state_dict())
        _write(aside / STATE, {**optimization.state(), **beside})
        facts = {"step": step, **facts, "sha256": {name: sha256(aside / name) for name in (MODEL, STATE)}}
        write_text(aside / FACTS, json.dumps(facts, indent=1))
        if final.exists():
            shutil.rmtree(final)
        os.replace(aside, final)
        _flush_folder(folder)
    except OSError as e:
        shutil.rmtree(aside, ignore_errors=True)
        why = "no space is left on the disk" if e.errno == errno.ENOSPC else str(e)
        kept = [path.name for path in found(folder)]
        raise ToolkitError(
            f"the checkpoint of step {step} could not be written to {folder}: {why}\n"
            f"kept: {kept[-1] if kept else 'no checkpoint yet'}; mend it and continue with train run=DIR"
        ) from e
    for old in [path for path in found(folder) if path != final][: -(keep - 1) or None]:
        shutil.rmtree(old)


def newest(folder: Path, notices: list[str]) -> Checkpoint | None:
    """The newest whole checkpoint of a folder; None where none was ever written.

    A torn or damaged one is passed over with a notice. ToolkitError where none is whole, and where a file is no
    safetensors at all or lies about its sizes.
    """
    paths = found(folder)
    for path in reversed(paths):
        try:
            return _open(path)
        except DamagedFile as e:
            notices.append(f"{path} is damaged ({e}): falling back to the checkpoint before it")
    if paths:
        raise ToolkitError(f"{folder}: none of its {len(paths)} checkpoints is whole ({notices[-1]})")
    return None


def set_aside(path: Path) -> None:
    """Renames a damaged checkpoint, so that it is neither found nor counted among those kept."""
    other = path.with_name(f"{path.name}.damaged")
    shutil.rmtree(other, ignore_errors=True)
    path.rename(other)


def found(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    return sorted(p for p in folder.glob("step-*") if p.is_dir() and p.name[5:].isdecimal())


def _open(path: Path) -> Checkpoint:
    try:
        facts = read_json(path / FACTS)
        hashes, step = dict(facts["sha256"]), int(facts["step"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as e:
        raise DamagedFile(f"{FACTS}: {e}") from e
    if step != int(path.name[5:]):
        raise DamagedFile(f"{FACTS} is of step {step}")
    for name in (MODEL, STATE):
        _check_written(path / name, hashes.get(name))
    return Checkpoint(path, step, facts)


def _check_written(path: Path, written: str | None) -> None:
    """A file against the hash that was noted; one that is as it was written was not cut short, but lies."""
    try:
        check_safetensors(path)
    except DamagedFile as e:
        if path.is_file() and sha256(path) == written:
            raise ToolkitError(f"{path} lies about its sizes: it is as it was written, but {e}") from e
        raise
    if sha256(path) != written:
        raise DamagedFile(f"{path.name} is not what was written")


def check_safetensors(path: Path) -> None:
    """DamagedFile where a safetensors file is torn; ToolkitError where it never was one, or lies about its sizes."""
    try:
        found = path.stat()
        if not S_ISREG(found.st_mode):
            raise DamagedFile(f"{path.name} is no file")
        size = found.st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(min(length, LARGEST_HEADER))
    except OSError as e:
        raise DamagedFile(f"{path.name}: {e.strerror}") from e
    if size < 8:
        raise DamagedFile(f"{path.name} has {size} bytes")
    if length > LARGEST_HEADER or (size > 8 and text[:1] != b"{"):
        raise ToolkitError(f"{path} is no safetensors file: nothing else is read")
    if len(text) < length:
        raise DamagedFile(f"{path.name} is cut short")
    try:
        end = 8 + length + _data_size(text)
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as e:
        raise ToolkitError(f"{path} lies about its sizes, or is no safetensors file: {e}") from e
    if size < end:
        raise DamagedFile(f"{path.name} is cut short")
    try:
        safe_open(path, framework="pt")  # type: ignore[no-untyped-call]
    except (SafetensorError, OSError, ValueError) as e:
        raise ToolkitError(f"{path} lies about its sizes: {e}") from e


def _data_size(text: bytes) -> int:
    """Bytes of data that a header announces; ValueError where its entries contradict one another or themselves."""
    header, at = json.loads(text, parse_float=int, parse_constant=int), 0  # int refuses fractions and infinity
    header.pop("__metadata__", None)
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        if begin != at or end - begin != prod(entry["shape"]) * TYPES[entry["dtype"]].itemsize:
            raise ValueError(f"{name} of {entry['dtype']} {entry['shape']} does not fill {entry['data_offsets']}")
        at = end
    return at


def read_shapes(path: Path) -> dict[str, Shape]:
    """What a safetensors file holds, by name; none of it is read."""
    with safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
        held = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {name: Shape(tuple(part.get_shape()), TYPES[part.get_dtype()]) for name, part in held.items()}


def read_tensors(path: Path, names: Iterable[str]) -> dict[str, Tensor]:
    """The named tensors of a safetensors file."""
    with safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
        return {name: file.get_tensor(name) for name in names}


def check_fit(own: Mapping[str, Shape], held: Mapping[str, Shape], where: Path) -> None:
    """ToolkitError naming the first tensors of which only one side knows, or that differ in shape or type."""
    wrong = [name for name in sorted({*own, *held}) if own.get(name) != held.get(name)]
    if wrong:
        told = [f"{name} {_told(own, held, name)} here, {_told(held, own, name)} there" for name in wrong[:2]]
        more = f" and {len(wrong) - 2} more" if len(wrong) > 2 else ""
        raise ToolkitError(
            f"the weights of {where} do not fit this model: {'; '.join(told)}{more}\n"
            "a run keeps its parts and their sizes: start a new run for others"
        )


def _told(held: Mapping[str, Shape], other: Mapping[str, Shape], name: str) -> str:
    """A tensor as far as it differs from the other's."""
    if name not in held:
        return "absent"
    shape, dtype = held[name]
    return str(dtype).removeprefix("torch.") if name in other and other[name].shape == shape else str(shape)


def _check_state(held: Mapping[str, Shape], optimization: Optimization) -> None:
    """ValueError naming a tensor that is none of a checkpoint's of this optimization, or not of its shape and type."""
    own = {name: Shape.of(parameter) for name, parameter in optimization.parameters.items()}
    number = Shape((), torch.float32)
    for name, shape in held.items():
        kind, _, rest = name.partition(".")
        moment, _, of = rest.partition(".")
        wanted = {
            "average": own.get(rest),
            "optimizer": number if moment == "step" else own.get(of),
            "figures": Shape((), torch.int64) if rest == "count" else number,
            "random": shape if prod(shape.shape) <= LARGEST_RANDOM else None,
        }
        if shape != wanted.get(kind):
            raise ValueError(f"it holds {name} {shape.shape} of {str(shape.dtype).removeprefix('torch.')}")


def random_state() -> dict[str, Tensor]:
    """The generators of every rank; all take part. The first one's are named without a number."""
    own = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        own["cuda"] = torch.cuda.get_rng_state()
    return {_random(number, name): t for name, state in own.items() for number, t in enumerate(gathered(state))}


def set_random_state(state: dict[str, Tensor]) -> None:
    """This rank's generators, where they were saved; a rank that was not there before keeps its own."""
    setters = {"cpu": torch.set_rng_state}
    if torch.cuda.is_available():
        setters["cuda"] = torch.cuda.set_rng_state
    for name, setter in setters.items():
        if _random(rank(), name) in state:
            setter(state[_random(rank(), name)])


def _random(number: int, name: str) -> str:
    return f"random.{number}.{name}" if number else f"random.{name}"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """A text file, flushed to the disk."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    held = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    try:
        save_file(held, path)
    except SafetensorError as e:
        raise _as_oserror(e, path, sum(value.nbytes for value in held.values())) from e
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _as_oserror(e: SafetensorError, path: Path, size: int) -> OSError:
    """What safetensors reports without the system's number: a file of ``size`` bytes that could not be written.

    Whether the disk is full is asked of the disk. A file written here, by its bytes, would bring the number, but hold
    the weights in memory twice.
    """
    written = path.stat().st_size if path.exists() else 0
    full = written + shutil.disk_usage(path.parent).free < size
    return OSError(errno.ENOSPC if full else errno.EIO, str(e))


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
