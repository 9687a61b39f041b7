"""Tensors on disk: safetensors files, checked before they are read, flushed when they are written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from toolkit.errors import ToolkitError

LARGEST_HEADER = 1 << 24
"""Bytes. The format allows more, which would take gigabytes to parse; a model needs about a hundred per tensor."""
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
"""By their names in the format."""


class DamagedFileError(Exception):
    """A file that was torn or changed since it was written."""


class OversizedFileError(DamagedFileError):
    """A file that is far longer than its header declares: too long to be hashed for what it is."""


class Shape(NamedTuple):
    """What is known of a tensor before it is read."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> Shape:
        return cls(tuple(tensor.shape), tensor.dtype)


def check_safetensors(path: Path) -> None:
    """DamagedFileError for a torn safetensors file; ToolkitError for what is not one, or has an inconsistent header."""
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):
            raise DamagedFileError(f"{path.name} is not a file")
        size = status.st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(min(length, LARGEST_HEADER))
    except OSError as e:
        raise DamagedFileError(f"{path.name}: {e.strerror}") from e
    if size < 8:
        raise DamagedFileError(f"{path.name} has {size} bytes")
    if length > LARGEST_HEADER or (size > 8 and text[:1] != b"{"):
        raise ToolkitError(f"{path} is not a safetensors file: nothing else is read")
    if len(text) < length:
        raise DamagedFileError(f"{path.name} is cut short")
    try:
        end = 8 + length + _data_size(text)
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as e:
        raise ToolkitError(f"{path} has an inconsistent header, or is not a safetensors file: {e}") from e
    if size < end:
        raise DamagedFileError(f"{path.name} is cut short")
    if size > 2 * end + LARGEST_HEADER:
        raise OversizedFileError(f"{path.name} has {size} bytes, {size - end} more than its header declares")
    try:
        safe_open(path, framework="pt")  # type: ignore[no-untyped-call]
    except (SafetensorError, OSError, ValueError) as e:
        raise ToolkitError(f"{path} has an inconsistent header: {e}") from e


def _data_size(text: bytes) -> int:
    """Bytes of data that a header declares; ValueError where its entries are inconsistent."""
    header, at = json.loads(text, parse_float=int, parse_constant=int), 0  # int refuses fractions and infinity
    header.pop("__metadata__", None)
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        if begin != at or end - begin != prod(entry["shape"]) * TYPES[entry["dtype"]].itemsize:
            raise ValueError(f"{name} of {entry['dtype']} {entry['shape']} does not fill {entry['data_offsets']}")
        at = end
    return at


def read_shapes(path: Path) -> dict[str, Shape]:
    """Shapes of a safetensors file's tensors, by name; no tensor is read."""
    with safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {name: Shape(tuple(part.get_shape()), TYPES[part.get_dtype()]) for name, part in slices.items()}


def read_tensors(path: Path, names: Iterable[str]) -> dict[str, Tensor]:
    """The named tensors of a safetensors file."""
    return dict(each_tensor(path, names))


def each_tensor(path: Path, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    """The same, one after the other."""
    with safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
        for name in names:
            yield name, file.get_tensor(name)


def check_fit(own: Mapping[str, Shape], saved: Mapping[str, Shape], path: Path) -> None:
    """ToolkitError naming the first tensors that only one side has, or that differ in shape or type."""
    wrong = [name for name in sorted({*own, *saved}) if own.get(name) != saved.get(name)]
    if wrong:
        named = [difference(own, saved, name) for name in wrong[:2]]
        more = f" and {len(wrong) - 2} more" if len(wrong) > 2 else ""
        raise ToolkitError(
            f"the weights of {path} do not fit this model: {'; '.join(named)}{more}\n"
            "a run keeps its parts and their sizes: start a new run for others"
        )


def difference(own: Mapping[str, Shape], saved: Mapping[str, Shape], name: str) -> str:
    """How a tensor differs, in words."""
    return f"{name} {_shown(own, saved, name)} here, {_shown(saved, own, name)} there"


def _shown(shapes: Mapping[str, Shape], other: Mapping[str, Shape], name: str) -> str:
    """A tensor's shape, or its type where only that differs from the other's."""
    if name not in shapes:
        return "absent"
    shape, dtype = shapes[name]
    return str(dtype).removeprefix("torch.") if name in other and other[name].shape == shape else str(shape)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """A safetensors file, flushed to the disk. OSError where it cannot be written."""
    values = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    path.touch()
    mode = path.stat().st_mode & 0o777  # as the umask says; safetensors would leave the file to its owner alone
    try:
        save_file(values, path)
        path.chmod(mode)
    except SafetensorError as e:
        raise _as_oserror(e, path, sum(value.nbytes for value in values.values())) from e
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _as_oserror(e: SafetensorError, path: Path, size: int) -> OSError:
    """The error of a file of ``size`` bytes that could not be written, with the errno that safetensors leaves out.

    Whether the disk is full is read from its free space. Writing the bytes here would give the errno, but would need
    the weights in memory twice.
    """
    written = path.stat().st_size if path.exists() else 0
    full = written + shutil.disk_usage(path.parent).free < size
    return OSError(errno.ENOSPC if full else errno.EIO, str(e))


def flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
