"""Tensors as the members of an example: ``.npy`` arrays, and labels as text."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

LABEL, ARRAY = "cls", "npy"
"""Suffixes: of a label, a number in decimal digits, and of an array."""
_MAGIC = b"\x93NUMPY\x01\x00"


def to_member(name: str, value: Tensor, levels: int | None = None) -> tuple[str, bytes]:
    """A tensor as a member: its name, and its content, in the smallest type that holds the levels, if it has any."""
    if value.ndim == 0 and not value.is_floating_point():
        return f"{name}.{LABEL}", str(int(value)).encode()
    array = value.detach().cpu().numpy()
    if levels is not None:
        array = array.astype(smallest(levels))
    file = BytesIO()
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return f"{name}.{ARRAY}", file.getvalue()


def smallest(levels: int) -> np.dtype[Any]:
    """The smallest type that holds so many levels."""
    return np.dtype(np.uint8 if levels <= 1 << 8 else np.uint16 if levels <= 1 << 16 else np.int32)


def from_member(name: str, content: bytes, dtype: str) -> Tensor:
    """The tensor that a member holds, as NumPy's ``dtype``. ValueError where it holds none."""
    if name.endswith(f".{LABEL}") or name == LABEL:
        return torch.tensor(int(content))
    return torch.from_numpy(from_npy(content).astype(dtype))


def from_npy(content: bytes) -> np.ndarray:
    """An array, which shares its memory with the content. ValueError where it is none; nothing is unpickled."""
    length = 10 + int.from_bytes(content[8:10], "little")
    if content[:8] != _MAGIC or len(content) < length:
        raise ValueError("it is no .npy file of version 1")
    dtype, shape = _header(content[:length])
    if len(content) - length != dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise ValueError(f"it has {len(content) - length} bytes, not those of {shape} of {dtype}")
    return np.frombuffer(content, dtype, offset=length).reshape(shape)


@lru_cache(maxsize=64)
def _header(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Type and shape: parsed once, as all examples of a dataset have the same."""
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(BytesIO(header[8:]))
    if fortran or dtype.hasobject:
        raise ValueError(
            f"it holds {dtype}{' in the order of Fortran' if fortran else ''}: numbers row by row are needed"
        )
    return dtype, shape
