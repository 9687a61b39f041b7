"""A batch file of CIFAR-10: a pickle, of which no code is run and no memory taken that its size does not explain."""

from __future__ import annotations

import pickle
import pickletools
from io import BytesIO
from math import prod
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

from toolkit import ToolkitError

ORIGIN = "the files are those of the CIFAR-10 python version, https://www.cs.toronto.edu/~kriz/cifar.html"
SHAPE = (3, 32, 32)
PER_FILE = 10_000
CLASSES = 10
LARGEST = 1 << 26
"""Bytes of a batch file, at most; the published ones have half as many."""
MEMO = 1 << 20
"""Objects that a pickle refers back to, at most: room for as many is made."""


class Batch(NamedTuple):
    """The content of a file."""

    images: Tensor
    """``(10000, 3, 32, 32)`` uint8."""
    labels: Tensor
    """``(10000,)`` int64."""


def read_batch(stream: IO[bytes], name: str) -> Batch:
    """A batch file, as published or saved again by a later Python or NumPy; ToolkitError, with its ``name``, otherwise.

    The files are pickles. The unpickler admits only the names that rebuild an array, and replaces them with classes
    that record their arguments, so that opening a file never runs its author's code.
    """
    try:
        content = _load(stream)
        array = _entry(content, "data")
        if not isinstance(array, _Array | _Buffer):
            raise ValueError("its data is no array")
        images = array.values
        labels = _entry(content, "labels")
        if not isinstance(labels, list) or not all(type(label) is int for label in labels):
            raise ValueError("its labels are no list of numbers")
        if images.shape != (PER_FILE, prod(SHAPE)) or len(labels) != PER_FILE:
            raise ValueError(f"its shapes are {tuple(images.shape)} and {(len(labels),)}")
        if not all(0 <= label < CLASSES for label in labels):
            raise ValueError(f"its labels are not in 0..{CLASSES - 1}")
        return Batch(images.view(-1, *SHAPE), torch.tensor(labels))
    except Exception as error:  # a damaged pickle can fail in any way
        raise ToolkitError(f"{name}: not a CIFAR-10 batch ({error}); {ORIGIN}") from error


def _load(stream: IO[bytes]) -> Any:
    raw = stream.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise ValueError(f"it has more than {LARGEST:,} bytes")
    for opcode, index, _ in pickletools.genops(raw):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(index, int) and index >= MEMO:
            raise ValueError(f"it numbers its objects from {index:,} on")
    return _BatchUnpickler(BytesIO(raw), encoding="bytes").load()


def _entry(content: Any, name: str) -> Any:
    """Python 2 pickled the names as bytes, and so does whoever loaded them as such."""
    return content[name.encode()] if name.encode() in content else content[name]


class _BatchUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        whole = f"{module.replace('numpy._core', 'numpy.core')}.{name}"  # NumPy 2 has another name for it
        if whole not in ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is rejected")
        return ADMITTED[whole]


class _Array:
    """Stands for a pickled array of bytes."""

    def __init__(self, *_: object) -> None:
        self.values = torch.empty(0, dtype=torch.uint8)

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Type, bool, bytes]) -> None:
        _, shape, dtype, columns_first, content = state
        self.values = _bytes(content, dtype, shape, columns_first)


class _Type:
    """Stands for a pickled element type."""

    def __init__(self, name: bytes | str, *_: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """The byte order, which does not matter for bytes."""


class _Buffer:
    """Stands for an array that was pickled by protocol 5."""

    def __init__(self, content: bytes, dtype: _Type, shape: tuple[int, ...], order: str) -> None:
        self.values = _bytes(content, dtype, shape, order != "C")


def _bytes(content: bytes, dtype: _Type, shape: tuple[int, ...], columns_first: bool) -> Tensor:
    if dtype.name not in (b"u1", "u1") or columns_first:
        raise ValueError(f"its array is not of bytes, row by row: {dtype.name!r}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(shape)


def _encode(text: str, encoding: str) -> bytes:
    """Bytes, as Python 3 writes them for Python 2."""
    if encoding != "latin1":
        raise ValueError(f"it has bytes in {encoding!r}")
    return text.encode("latin1")


ADMITTED = {
    "_codecs.encode": _encode,
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy.core.numeric._frombuffer": _Buffer,
    "numpy.ndarray": _Array,
    "numpy.dtype": _Type,
}
