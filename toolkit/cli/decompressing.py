"""Compressed files to examples, and these to data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from toolkit.cli.long import cut
from toolkit.coding.codec import Row
from toolkit.coding.container import Header, UnreadableError, unpack
from toolkit.coding.read import decompress, decompress_each
from toolkit.errors import ToolkitError
from toolkit.model import Model
from toolkit.sample import BATCH, Progress

Opened = tuple[Header, bytes]


def read_all(model: Model, files: Sequence[Path], progress: Callable[[int], None]) -> list[Row]:
    """The examples of all files, in their order. Files of one example each are read side by side.

    ToolkitError naming a file that cannot be read.
    """
    opened, rows, done = [_open(path) for path in files], dict[int, list[Row]](), 0
    for places in _alike([header for header, _ in opened]):
        some = [opened[i] for i in places]
        try:
            codec = model.codec_of(some[0][0])
            if len(some[0][0].examples) == 1:
                rows |= {i: [row] for i, row in zip(places, decompress_each(codec, some), strict=True)}
            else:
                rows[places[0]] = decompress(codec, *some[0])
        except UnreadableError as e:
            raise ToolkitError(f"{files[places[e.place]]}: {e}") from e
        except ToolkitError as e:
            raise ToolkitError(f"{files[places[0]]}: {e}") from e
        done += len(places)
        progress(done)
    return [row for i in range(len(files)) for row in rows[i]]


def pieces_of(model: Model, rows: Sequence[Row], progress: Progress) -> Iterator[Iterable[Tensor]]:
    """The data of each example ``(channels, positions, …)`` in pieces; decoded where it was not kept."""
    for _, some in groupby(rows, key=lambda row: (row.x is None, row.example.grid, row.example.axes)):
        alike = list(some)
        for start in range(0, len(alike), BATCH):
            yield from _pieces(model, alike[start : start + BATCH], progress)


def _pieces(model: Model, rows: Sequence[Row], progress: Progress) -> Iterator[Iterable[Tensor]]:
    axes = rows[0].example.axes
    if rows[0].x is not None:
        yield from ([row.x[(slice(None), *map(slice, axes))]] for row in rows if row.x is not None)
        return
    conditions = {name: torch.stack([row.conditions[name] for row in rows]) for name in rows[0].conditions}
    if axes[0] <= model.spec.axes[0] or model.code_spec.parts:
        x = model.decode(torch.stack([row.codes for row in rows]), conditions, progress=progress).cpu()
        yield from ([example[(slice(None), *map(slice, axes))]] for example in x)
        return
    for i, row in enumerate(rows):
        known = {name: value[i : i + 1] for name, value in conditions.items()}
        x_pieces = model.decode_pieces([row.codes[None]], known, progress=progress)
        yield cut(x_pieces, lambda: axes[0], axes[1:])


def _open(path: Path) -> Opened:
    try:
        return unpack(path.read_bytes())
    except OSError as e:
        raise ToolkitError(f"{path}: {e.strerror or e}") from e
    except UnreadableError as e:
        raise ToolkitError(f"{path}: {e}") from e


def _alike(headers: Sequence[Header]) -> list[list[int]]:
    """Files of one example that one codec reads, together; others alone."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, header in enumerate(headers):
        alone = (i,) if len(header.examples) > 1 else ()
        groups.setdefault((header.prior, header.lossless, header.depth, *alone), []).append(i)
    return list(groups.values())
