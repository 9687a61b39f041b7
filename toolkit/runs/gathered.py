"""Files of tensors that ranks have shards of: written tensor by tensor, as they are gathered."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from toolkit.distributed import raise_together, rank
from toolkit.runs.tensors import TYPES
from toolkit.sharding import whole

NAMES = {dtype: name for name, dtype in TYPES.items()}
"""Of types, in the format."""


def write_gathered(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file of whole tensors, flushed to the disk, as ``write_tensors`` gives it; all ranks call it.

    Rank 0 writes, and has no more than one tensor whole at a time. OSError there where it cannot, PeerError on the
    others.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    gathered = (whole(tensors[name].detach()) for name in names)
    with raise_together():
        try:
            if rank() == 0:
                _write(path, _header({name: tensors[name] for name in names}), gathered)
        finally:  # where rank 0 fails, too, the others wait for it
            for _ in gathered:
                pass


def _write(path: Path, header: bytes, tensors: Iterable[Tensor]) -> None:
    with path.open("wb") as file:
        file.write(header)
        for tensor in tensors:
            file.write(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
            del tensor  # before the next one is gathered
        file.flush()
        os.fsync(file.fileno())


def _header(tensors: Mapping[str, Tensor]) -> bytes:
    """The format's: the length of what follows, and JSON, filled up to a multiple of eight bytes."""
    entries, at = dict[str, object](), 0
    for name, tensor in tensors.items():
        end = at + prod(tensor.shape) * tensor.dtype.itemsize
        entries[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
