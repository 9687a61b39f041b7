"""A split's codes on disk: stage two reads them, ``toolkit encode`` writes them.

One safetensors file: ``codes`` ``(examples, depth, *grid)`` in the smallest integer type and a tensor per condition,
memory-mapped when read. Its metadata holds a key of the weights, the dataset and the split, so that codes of an older
model or of other data are never mistaken for them, and a hash of the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from toolkit.autoencoder import Autoencoder
from toolkit.batches import Batch
from toolkit.device import in_float32
from toolkit.errors import ToolkitError
from toolkit.lengths.mask import has_steps, mask_of, own, together
from toolkit.nn.noise import seeded
from toolkit.runs.aside import aside
from toolkit.runs.formats import FORMAT, current_condition, format_of
from toolkit.runs.joined import Joined
from toolkit.runs.tensors import DamagedFileError, check_safetensors
from toolkit.spec import CodeSpec

LENGTH = "length of "
"""Before a name: how many positions, or steps, are an example's own."""

STRETCH = 1 << 20
"""Codes read at once when all are counted: so few are exact in a float32 count."""

HASH, UNSIGNED = "sha256", "0" * 64
"""Where the metadata have the hash of the file, and what is in its place while the file is hashed."""

_TYPES = {"U8": np.uint8, "U16": np.uint16, "I32": np.int32, "I64": np.int64, "F32": np.float32}
_TYPE_NAMES = {np.dtype(t): name for name, t in _TYPES.items()}


def code_type(code_spec: CodeSpec) -> np.dtype[Any]:
    """The smallest type that holds every code."""
    largest = max(code_spec.codebook_sizes) - 1
    return np.dtype(np.uint8 if largest < 1 << 8 else np.uint16 if largest < 1 << 16 else np.int32)


def cache_key(*parts: Any) -> str:
    """A hash of the weights, the dataset, the split, and whatever else the codes depend on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class CachedCodes:
    """Codes of some splits as examples: ``x`` is ``(depth, *grid)`` int64, besides the conditions.

    Those of unequal lengths lie filled up to the longest, with how many are an example's own under ``LENGTH`` and a
    name; ``one_length``: see ``Dataset.one_length``.
    """

    def __init__(self, splits: Mapping[str, Mapping[str, np.ndarray | Joined]], one_length: bool = False) -> None:
        self.one_length = one_length
        of = {split: dict(values) for split, values in splits.items()}
        self._lengths = {
            split: {
                name.removeprefix(LENGTH): np.asarray(values.pop(name))
                for name in list(values)
                if name.startswith(LENGTH)
            }
            for split, values in of.items()
        }
        self._splits = of

    def lengths(self, split: str) -> Sequence[int] | None:
        """See ``Dataset.lengths``; of codes."""
        lengths = self._lengths.get(split)
        return lengths["codes"].tolist() if lengths else None

    def size(self, split: str) -> int:
        return len(self._splits[split]["codes"]) if split in self._splits else 0

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        row = {name: torch.from_numpy(np.array(values[index])) for name, values in self._splits[split].items()}
        for name, lengths in self._lengths[split].items():
            row[name] = row[name].narrow(int(name == "codes"), 0, int(lengths[index]))
        return {"x": row.pop("codes").long(), **row}

    def batch(
        self, split: str, indices: Sequence[int], generators: Sequence[torch.Generator] | None
    ) -> dict[str, Tensor]:
        """The examples of these indices, stacked; see ``Dataset.batch``."""
        if self._lengths[split]:
            return together([self.example(split, index, None) for index in indices])
        places = np.asarray(indices, dtype=np.int64)
        rows = {name: torch.from_numpy(np.array(values[places])) for name, values in self._splits[split].items()}
        return {"x": rows.pop("codes").long(), **rows}

    def table(self, split: str) -> dict[str, Tensor] | None:
        """The codes in a type that devices can gather, and the conditions; see ``Dataset.table``."""
        if self._lengths[split]:
            return None
        table = {name: torch.from_numpy(np.array(values)) for name, values in self._splits[split].items()}
        return {**table, "codes": table["codes"].int()} if table["codes"].dtype == torch.uint16 else table

    def draws(self, split: str, indices: Sequence[int], generators: Sequence[torch.Generator]) -> dict[str, Tensor]:
        """Nothing is random."""
        return {}

    def from_table(self, rows: dict[str, Tensor], draws: dict[str, Tensor]) -> dict[str, Tensor]:
        """A batch from rows of the table."""
        return {"x": rows["codes"].long(), **{name: rows[name] for name in rows if name != "codes"}}

    def stretches(self, split: str) -> Iterator[Tensor]:
        """All codes of a split, in order, some examples ``(some, depth, *grid)`` int64 at a time; those of unequal
        lengths joined, ``(1, depth, all of them, …)``."""
        codes, lengths = self._splits[split]["codes"], self.lengths(split)
        rows = max(1, STRETCH // max(1, codes[:1].size))
        for start in range(0, len(codes), rows):
            some = torch.from_numpy(codes[start : start + rows].astype(np.int64))
            of = None if lengths is None else torch.tensor(lengths[start : start + rows])
            yield some if of is None else own(some, mask_of(of, some.shape[2]))


def encode_batches(
    autoencoder: Autoencoder, batches: Iterable[Batch], positions: int | None = None
) -> Iterator[dict[str, Tensor]]:
    """Codes and conditions of batches, on the CPU; ``positions``: filled up to so many, as they are of unequal lengths.

    Where there is a posterior the codes are sampled from it, the same at every call. These are what a prior has to
    model: trained on the likeliest codes alone, it would give almost no probability to the others.
    """
    autoencoder.eval()
    with torch.no_grad():
        for batch in batches:
            with seeded(batch.number), in_float32(batch.x.device):
                codes = autoencoder.masked(batch.mask).sample(batch.x).codes.cpu()
            rows = {"codes": codes, **{name: value.cpu() for name, value in batch.conditions.items()}}
            yield rows if positions is None else filled_up(rows, batch.mask, positions)


def filled_up(rows: dict[str, Tensor], mask: Tensor | None, positions: int) -> dict[str, Tensor]:
    """Codes and conditions of a batch, filled up to so many codes along the first axis, with their own lengths."""
    codes = rows["codes"]
    longest = codes.shape[2]
    whole = torch.full((len(codes),), longest)
    lengths = whole if mask is None else mask.sum(1).cpu() * longest // mask.shape[1]
    filled = dict(rows)
    for name, value in rows.items():
        if name != "codes" and not has_steps(value):
            continue
        axis = 2 if name == "codes" else 1
        steps, at = value.shape[axis] * positions // longest, [slice(None)] * axis
        filled[name] = value.new_zeros(*value.shape[:axis], steps, *value.shape[axis + 1 :])
        filled[name][(*at, slice(value.shape[axis]))] = value
        filled[f"{LENGTH}{name}"] = (lengths * value.shape[axis] // longest).int()
    return filled


def write_codes(
    path: Path,
    code_spec: CodeSpec,
    batches: Iterable[dict[str, Tensor]],
    size: int,
    metadata: dict[str, str],
    progress: Callable[[int], None] = lambda _: None,
    places: Sequence[int] | None = None,
) -> None:
    """Streams ``size`` examples into one safetensors file, which appears whole or not at all; ``places`` are their
    numbers there, in the order in which they come (None: that order).

    Processes that write the same file do not meet: the last one to end replaces what the others wrote.
    ValueError where the batches hold another number of examples.
    """
    partial = aside(path)
    maps: dict[str, np.memmap] = {}
    at = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for batch in batches:
            arrays = {name: value.numpy() for name, value in batch.items()}
            arrays["codes"] = arrays["codes"].astype(code_type(code_spec))
            if not maps:
                maps = _create(partial, {k: (v.dtype, (size, *v.shape[1:])) for k, v in arrays.items()}, metadata)
            rows = slice(at, at + len(arrays["codes"]))
            for name, values in arrays.items():
                maps[name][rows if places is None else list(places[rows])] = values
            at = rows.stop
            progress(at)
        if at != size:
            raise ValueError(f"got {at} examples, expected {size}")
        for mapped in maps.values():
            mapped.flush()
        _sign(partial)
        os.replace(partial, path)
    except OSError as e:
        raise ToolkitError(f"codes could not be written to {path}: {e.strerror or e}") from e
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def read_codes(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Memory-mapped arrays and metadata; ToolkitError where the file is damaged or not one of codes."""
    try:
        check_safetensors(path)
    except DamagedFileError as e:
        raise ToolkitError(f"{path}: {e}") from e
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(length))
    metadata = header.pop("__metadata__", {})
    metadata.pop(HASH, None)
    written = metadata.pop("format", "0")
    number = format_of(int(written) if written.isdecimal() else written, path)
    header = {current_condition(name, number): entry for name, entry in header.items()}
    has_codes = header.get("codes", {"dtype": "F32"})["dtype"] != "F32"
    if not has_codes or any(entry["dtype"] not in _TYPES or not entry["shape"] for entry in header.values()):
        raise ToolkitError(f"{path} holds no codes")
    if any(0 in entry["shape"] for entry in header.values()):
        raise ToolkitError(f"{path} holds no examples")
    return _arrays(path, 8 + length, header), metadata


def is_as_written(path: Path) -> bool:
    """Whether a file of codes still has its hash. One that was written without is taken to be so."""
    with path.open("rb") as file:
        text = _header(file)
        try:
            signed = json.loads(text)["__metadata__"][HASH]
        except (KeyError, TypeError):
            return True
        return bool(signed == _digest(file, text.replace(_entry(str(signed)), _entry(UNSIGNED))))


def check_codes(arrays: dict[str, np.ndarray], code_spec: CodeSpec, size: int) -> None:
    """ValueError where arrays are not the codes ``(size, depth, *grid)`` of this model."""
    codes = arrays["codes"]
    if codes.shape != (size, *code_spec.shape):
        raise ValueError(f"codes of shape {codes.shape}, not {(size, *code_spec.shape)}")
    if any(len(values) != size for values in arrays.values()):
        raise ValueError(f"conditions of another number of examples than {size}")
    rows = max(1, STRETCH // max(1, codes[:1].size))
    sizes = np.array(code_spec.codebook_sizes).reshape(-1, *[1] * len(code_spec.grid))
    for start in range(0, size, rows):
        part = codes[start : start + rows]
        if (part < 0).any() or (part >= sizes).any():
            raise ValueError(f"codes out of {', '.join(map(str, code_spec.codebook_sizes))}")


def _sign(path: Path) -> None:
    """Writes a file's hash into its metadata."""
    with path.open("r+b") as file:
        text = _header(file)
        digest = _digest(file, text)
        file.seek(8 + text.index(_entry(UNSIGNED)))
        file.write(_entry(digest))


def _entry(value: str) -> bytes:
    return f'"{HASH}": "{value}"'.encode()


def _header(file: BinaryIO) -> bytes:
    return file.read(struct.unpack("<Q", file.read(8))[0])


def _digest(file: BinaryIO, header: bytes) -> str:
    """The hash of a header and of what follows in the file."""
    digest = hashlib.sha256(header)
    while part := file.read(STRETCH):
        digest.update(part)
    return digest.hexdigest()


def _create(
    path: Path, arrays: dict[str, tuple[np.dtype[Any], tuple[int, ...]]], metadata: dict[str, str]
) -> dict[str, np.memmap]:
    """An empty safetensors file of the right size, its arrays mapped for writing."""
    header: dict[str, Any] = {"__metadata__": {"format": str(FORMAT), **metadata, HASH: UNSIGNED}}
    at = 0
    for name, (dtype, shape) in sorted(arrays.items(), key=lambda item: -item[1][0].itemsize):
        size = int(np.prod(shape)) * dtype.itemsize
        header[name] = {"dtype": _TYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.unlink(missing_ok=True)  # a link of that name leads elsewhere
    with path.open("xb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        # The space is reserved, not only declared: writing a map to a full disk kills the process.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, 8 + len(text) + at)
        else:
            file.truncate(8 + len(text) + at)
    del header["__metadata__"]
    return {name: _map(path, 8 + len(text), entry) for name, entry in header.items()}


def _map(path: Path, start: int, entry: dict[str, Any]) -> np.memmap:
    """An array of a file, to be written to."""
    offset = start + entry["data_offsets"][0]
    return np.memmap(path, _TYPES[entry["dtype"]], "r+", offset, tuple(entry["shape"]))


def _arrays(path: Path, start: int, header: dict[str, Any]) -> dict[str, np.ndarray]:
    """A file's arrays, mapped, not to be written to.

    They hold no descriptor, as each map of NumPy's does: a process has a thousand, and a split may have more files.
    """
    content = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8).numpy()
    content.flags.writeable = False
    parts = {name: content[slice(*(start + at for at in entry["data_offsets"]))] for name, entry in header.items()}
    return {name: parts[name].view(_TYPES[entry["dtype"]]).reshape(entry["shape"]) for name, entry in header.items()}
