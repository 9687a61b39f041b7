"""Files of tensors in parts: each rank has written its rows of every tensor that is sharded, and rank 0 all others.

A part, ``model-00001-of-00002.safetensors``, is a safetensors file of its own. A tensor is its rows in the parts that
have some, in their order. This takes the place of torch's distributed checkpoints, whose files are pickles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from toolkit.distributed import all_gather_object, raise_together, rank, ranks
from toolkit.part_names import part_name
from toolkit.runs.tensors import DamagedFileError, Shape, read_shapes, sha256, write_tensors
from toolkit.sharding import is_shard, local


def write_parts(folder: Path, files: Mapping[str, Mapping[str, Tensor]]) -> dict[str, str]:
    """Every rank writes its part of each file; the hashes of all parts by their names. All ranks call it.

    OSError where a part cannot be written, PeerError on the others.
    """
    own: dict[str, str] = {}
    with raise_together():
        for file, tensors in files.items():
            path = folder / part_name(file, rank() + 1, ranks())
            kept = {name: local(tensor) for name, tensor in tensors.items() if is_shard(tensor) or not rank()}
            write_tensors(path, kept)
            own[path.name] = sha256(path)
    return {name: value for hashes in all_gather_object(own) for name, value in hashes.items()}


def joined_shapes(paths: Sequence[Path]) -> dict[str, Shape]:
    """Shapes of the tensors in a file, or in its parts. DamagedFileError where rows do not fit together."""
    joined: dict[str, Shape] = {}
    for path in paths:
        for name, (shape, dtype) in read_shapes(path).items():
            if name not in joined:
                joined[name] = Shape(shape, dtype)
                continue
            before = joined[name]
            if not shape or (before.shape[1:], before.dtype) != (shape[1:], dtype):
                raise DamagedFileError(f"{path.name} has rows of {name} that do not fit those before")
            joined[name] = Shape((before.shape[0] + shape[0], *shape[1:]), dtype)
    return joined


def each_joined(paths: Sequence[Path], names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    """The named tensors of a file, or of its parts, one after the other."""
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(path, framework="pt")) for path in paths]  # type: ignore[no-untyped-call]
        having = [(file, set(file.keys())) for file in files]
        for name in names:
            rows = [file.get_tensor(name) for file, there in having if name in there]
            yield name, rows[0] if len(rows) == 1 else torch.cat(rows)
