"""Examples as rows of a compressed file, and its bytes on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.cli.files import encode_examples, pad, read_example
from toolkit.cli.items import MOST, Item
from toolkit.cli.long import LongFile, encode
from toolkit.cli.named import targets
from toolkit.coding.codec import Codec, Row
from toolkit.coding.container import SUFFIX, Example
from toolkit.coding.write import Packed, compress, compress_each
from toolkit.errors import ToolkitError
from toolkit.model import Model
from toolkit.sample import BATCH
from toolkit.writing import replacing


class Written(NamedTuple):
    """What was written, in bytes, and what it should have come to."""

    stream: int
    header: int
    bits: float
    """By the probabilities."""
    dims: int
    """Numbers of data."""


def rows_of(
    model: Model,
    codec: Codec,
    items: Sequence[Item],
    labels: Mapping[str, Tensor],
    progress: Callable[[int], None],
) -> list[Row]:
    """Codes of all examples, and the data itself where it is kept; ``labels`` of all of them come before their own.

    Examples of various lengths are sorted by length, so that those coded side by side are alike.
    """
    rows = [row for group in _groups(model, codec, items, labels, progress) for row in group]
    return sorted(rows, key=lambda row: row.example.grid) if len({row.example.grid for row in rows}) > 1 else rows


def write(codec: Codec, rows: Sequence[Row], out: Path, progress: Callable[[int], None]) -> Written:
    """One file, or one for each example in a folder; ToolkitError where that is not possible."""
    dims = sum(codec.autoencoders[-1].data.channels * prod(row.example.axes) for row in rows)
    if out.suffix == SUFFIX:
        packed = compress(codec, rows, progress)
        out.parent.mkdir(parents=True, exist_ok=True)
        _write(out, packed)
        return _total([packed], dims)
    out.mkdir(parents=True, exist_ok=True)
    home, files = out.resolve(), list[Packed]()
    names = targets([row.example.name for row in rows], SUFFIX, "example")
    for name, packed in zip(names, compress_each(codec, rows, progress), strict=True):
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.parent.resolve().is_relative_to(home):
            raise ToolkitError(f"{path.parent} is a link that leads out of {out}: remove it, or take another out=")
        _write(path, packed)
        files.append(packed._replace(data=b""))
    return _total(files, dims)


def _write(path: Path, packed: Packed) -> None:
    with replacing(path) as partial:
        partial.write_bytes(packed.data)


def _total(files: Sequence[Packed], dims: int) -> Written:
    sums = (sum(packed.stream for packed in files), sum(packed.header for packed in files))
    return Written(*sums, sum(packed.bits for packed in files), dims)


def _groups(
    model: Model, codec: Codec, items: Sequence[Item], labels: Mapping[str, Tensor], progress: Callable[[int], None]
) -> Iterator[list[Row]]:
    """Some examples at a time, or a long file."""
    waiting: list[tuple[int, dict[str, Tensor]]] = []
    for i, item in enumerate(items):
        row = item.read()
        if isinstance(row, LongFile) and codec.lossless:
            row = {"x": read_example(model, row.path)}
        if isinstance(row, LongFile):
            codes, axes = encode(model, row)
            yield [Row(Example(item.name(), axes, tuple(codes.shape[1:])), codes, None, _known(codec, labels, i, {}))]
        else:
            waiting.append((i, row))
        if waiting and (len(waiting) == BATCH or sum(r["x"].numel() for _, r in waiting) > MOST):
            yield _together(model, codec, items, labels, waiting)
            waiting = []
        progress(i + 1)
    if waiting:
        yield _together(model, codec, items, labels, waiting)


def _together(
    model: Model,
    codec: Codec,
    items: Sequence[Item],
    labels: Mapping[str, Tensor],
    waiting: Sequence[tuple[int, dict[str, Tensor]]],
) -> list[Row]:
    codes = encode_examples(model, [row["x"] for _, row in waiting])
    rows = []
    for (i, row), code in zip(waiting, codes, strict=True):
        x = row["x"]
        example = Example(items[i].name(), tuple(x.shape[1:]), tuple(code.shape[1:]))
        kept = pad(model, x[None])[0].long() if codec.lossless else None
        rows.append(Row(example, code, kept, _known(codec, labels, i, row)))
    return rows


def _known(codec: Codec, labels: Mapping[str, Tensor], i: int, row: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An example's conditions: those given for it before those that it came with."""
    own = {name: torch.as_tensor(value) for name, value in row.items() if name in codec.seen}
    return own | {name: value[i].cpu() for name, value in labels.items()}
