"""What runs and everyday codecs make of the same examples: bytes and error, a point for each quality."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import inf, log10
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.cli.compressing import rows_of
from toolkit.cli.decompressing import pieces_of
from toolkit.cli.files import read_example
from toolkit.cli.items import Item
from toolkit.cli.long import LongFile
from toolkit.coding.codec import Codec, Row
from toolkit.coding.write import compress
from toolkit.errors import ToolkitError
from toolkit.file_codec import FileCodec
from toolkit.metrics.reconstruction import SquaredError
from toolkit.model import Model
from toolkit.sample import unwatched
from toolkit.spec import DataSpec

Progress = Callable[[int], None]


class Example(NamedTuple):
    """One of those that all are compared on."""

    name: str
    row: dict[str, Tensor] | LongFile
    """As runs take it."""
    x: Tensor
    """``(channels, *axes)``, all of it."""


class Point(NamedTuple):
    """All examples at one quality."""

    at: str
    """The quality in words."""
    size: int
    """Bytes of all files."""
    header: int
    """Those of them that are no numbers."""
    metrics: Mapping[str, float]
    """``mse``, ``nmse``, ``psnr``, ``snr``; without the latter two where nothing is lost."""


class Curve(NamedTuple):
    """A run, or a codec."""

    label: str
    points: Sequence[Point]
    run: Path | None = None
    prior: str = ""


def read_examples(model: Model, items: Sequence[Item]) -> list[Example]:
    """All examples, in memory."""
    examples = []
    for item in items:
        row = item.read()
        x = read_example(model, row.path) if isinstance(row, LongFile) else row["x"]
        examples.append(Example(item.name(), row, x))
    return examples


def curve_of_codec(name: str, codec: FileCodec, spec: DataSpec, examples: Sequence[Example], report: Progress) -> Curve:
    """A codec's point for each of its qualities."""
    points, done = [], 0
    for quality in codec.qualities:
        size = header = 0
        error = SquaredError()
        for example in examples:
            coded = codec.through(example.x, quality)
            size, header = size + len(coded.data), header + coded.header
            error.add(spec.scale(example.x), spec.scale(coded.x))
            done += 1
            report(done)
        points.append(Point(codec.words(quality), size, header, _metrics(error)))
    return Curve(name, points)


def curve_of_run(
    model: Model,
    label: str,
    examples: Sequence[Example],
    prior: str | None,
    conditions: Mapping[str, str],
    lossless: bool,
    report: Progress,
) -> tuple[Curve, list[str]]:
    """A run's point for each depth of its codes that its prior can code, and with all of the data; notices of others.

    Bytes are those of ``toolkit compress`` to one file, errors those of what ``toolkit decompress`` writes.
    """
    codec, depths, points, notices = model.codec(prior), range(1, model.code_spec.depth + 1), [], []
    labels = model.labels(conditions, len(examples), prior=codec.prior_name)
    rows = _rows(model, codec, examples, labels, report)
    for depth in depths:
        own = codec if depth == len(depths) else model.codec(prior, depth=depth)
        try:
            points.append(_point(model, own, f"depth {depth}" if len(depths) > 1 else "", rows, examples))
        except ToolkitError as e:
            if depth == len(depths):
                raise
            notices = [str(e)]
    if lossless:
        own = model.codec(prior, lossless=True)
        points.append(_point(model, own, "lossless", _rows(model, own, examples, labels, report), examples))
    return Curve(label, points, model.run.path, codec.prior_name), notices


def _rows(
    model: Model, codec: Codec, examples: Sequence[Example], labels: Mapping[str, Tensor], report: Progress
) -> list[tuple[int, Row]]:
    """The examples as they are coded, in the order in which they are, with their places."""
    numbered = [Item(partial(str, i), partial(_row, example)) for i, example in enumerate(examples)]
    rows = []
    for row in rows_of(model, codec, numbered, labels, report):
        place = int(row.example.name)
        named = replace(row.example, name=examples[place].name)
        rows.append((place, row._replace(example=named)))
    return rows


def _row(example: Example) -> dict[str, Tensor] | LongFile:
    return example.row


def _point(model: Model, codec: Codec, at: str, rows: Sequence[tuple[int, Row]], examples: Sequence[Example]) -> Point:
    packed = compress(codec, [row for _, row in rows])
    kept = [row._replace(codes=row.codes[: codec.kept_depth]) for _, row in rows]
    error = SquaredError()
    for (place, _), x in zip(rows, _joined(pieces_of(model, kept, unwatched)), strict=True):
        error.add(model.spec.scale(examples[place].x), model.spec.scale(x))
    return Point(at, len(packed.data), packed.header, _metrics(error))


def _joined(examples: Iterable[Iterable[Tensor]]) -> Iterator[Tensor]:
    for pieces in examples:
        yield torch.cat(list(pieces), 1)


def _metrics(error: SquaredError) -> dict[str, float]:
    """With ``snr`` in decibels; no ratio that is infinite."""
    metrics = error.compute()
    if metrics.get("nmse"):
        metrics["snr"] = -10 * log10(metrics["nmse"])
    return {name: value for name, value in metrics.items() if value != inf}
