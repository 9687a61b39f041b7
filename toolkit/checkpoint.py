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
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from toolkit.distributed import first, gathered, rank
from toolkit.errors import ToolkitError
from toolkit.optimization import Optimization

MODEL, STATE, FACTS = "model.safetensors", "state.safetensors", "state.json"
LARGEST_HEADER = 100_000_000
"""Bytes; the limit of the safetensors format."""
BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
"""Of a number, by the format's name of its type."""


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

    def load_weights(self, module: nn.Module, *, averaged: bool) -> None:
        """Weights and buffers into a module of the same make; ``averaged`` takes the averages where there are any."""
        weights = read_tensors(self.path / MODEL)
        if averaged:
            averages = read_tensors(self.path / STATE, prefix="average.")
            weights.update({name.removeprefix("average."): value for name, value in averages.items()})
        set_weights(module, weights, self.path)

    def check_weights(self, module: nn.Module) -> None:
        """ToolkitError where the weights are not a module's of this make."""
        check_fit(module.state_dict(), read_tensors(self.path / MODEL), self.path)

    def load_state(self, optimization: Optimization) -> dict[str, Tensor]:
        """All that a run needs to go on as if it had never stopped; gives back the figures that were saved."""
        self.load_weights(optimization.module, averaged=False)
        state = read_tensors(self.path / STATE)
        optimization.load({k: v for k, v in state.items() if k.startswith(("average.", "optimizer."))}, self.step)
        set_random_state(state)
        return {k.removeprefix("figures."): v for k, v in state.items() if k.startswith("figures.")}


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
        facts = json.loads((path / FACTS).read_text(encoding="utf-8"))
        hashes, step = dict(facts["sha256"]), int(facts["step"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DamagedFile(f"{FACTS}: {e}") from e
    for name in (MODEL, STATE):
        _check_written(path / name, hashes.get(name))
    return Checkpoint(path, step, facts)


def _check_written(path: Path, written: str | None) -> None:
    """A file against the hash that was noted; one that is as it was written was not cut short, but lies."""
    try:
        unchanged = sha256(path) == written
    except OSError as e:
        raise DamagedFile(f"{path.name}: {e.strerror}") from e
    try:
        check_safetensors(path)
    except DamagedFile as e:
        if unchanged:
            raise ToolkitError(f"{path} lies about its sizes: it is as it was written, but {e}") from e
        raise
    if not unchanged:
        raise DamagedFile(f"{path.name} is not what was written")


def check_safetensors(path: Path) -> None:
    """DamagedFile where a safetensors file is torn; ToolkitError where it never was one, or lies about its sizes."""
    try:
        size = path.stat().st_size
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
        if begin != at or end - begin != prod(entry["shape"]) * BYTES[entry["dtype"]]:
            raise ValueError(f"{name} of {entry['dtype']} {entry['shape']} does not fill {entry['data_offsets']}")
        at = end
    return at


def read_tensors(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a safetensors file whose names start with ``prefix``."""
    with safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
        return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118


def set_weights(module: nn.Module, weights: dict[str, Tensor], where: Path) -> None:
    """Weights into a module; ToolkitError naming the first tensors that do not fit."""
    check_fit(module.state_dict(), weights, where)
    module.load_state_dict(weights)


def check_fit(own: dict[str, Tensor], weights: dict[str, Tensor], where: Path) -> None:
    """ToolkitError naming the first tensors of which only one side knows, or that differ in shape."""
    wrong = [
        f"{name} {tuple(own[name].shape) if name in own else 'absent'} here,"
        f" {tuple(weights[name].shape) if name in weights else 'absent'} there"
        for name in sorted({*own, *weights})
        if name not in own or name not in weights or own[name].shape != weights[name].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 2} more" if len(wrong) > 2 else ""
        raise ToolkitError(
            f"the weights of {where} do not fit this model: {'; '.join(wrong[:2])}{more}\n"
            "a run keeps its parts and their sizes: start a new run for others"
        )


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
    try:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)
    except SafetensorError as e:
        raise _as_oserror(e) from e
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _as_oserror(e: SafetensorError) -> OSError:
    """safetensors reports a full disk as its own error, with the system's number in the text."""
    full = "os error 28" in str(e).lower() or "no space left" in str(e).lower()
    return OSError(errno.ENOSPC if full else errno.EIO, str(e))


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
