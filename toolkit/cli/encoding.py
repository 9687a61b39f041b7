"""Codes of many examples into one file, some examples in memory at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from toolkit.cli.files import encode_examples
from toolkit.cli.items import MOST, Item
from toolkit.cli.long import LongFile, encode
from toolkit.cli.named import KEY, to_bytes
from toolkit.model import Model
from toolkit.runs.codes import code_type, write_codes
from toolkit.sample import BATCH


class Encoded(NamedTuple):
    """What is kept of an example."""

    name: str
    codes: np.ndarray
    """``(depth, *grid)``."""
    axes: tuple[int, ...]
    """Of its data."""
    labels: dict[str, Tensor]


def write(model: Model, items: Sequence[Item], path: Path, varying: bool, progress: Callable[[int], None]) -> None:
    """Encodes examples into a file; ``varying``: they may differ in length, and the file says which has which.

    Codes of different lengths are filled up with zeros to the longest. ToolkitError naming what cannot be read.
    """
    longest = max(len(os.fsencode(item.name())) for item in items)
    groups = _encoded(model, items, progress)
    batches = _padded(groups, longest) if varying else (_joined(group, longest) for group in groups)
    write_codes(path, model.code_spec, batches, len(items), description(model))


def description(model: Model) -> dict[str, str]:
    """What a file of codes says of them, as JSON texts: the weights, the data's form, labels by condition."""
    spec, per_second = model.spec, codes_per_second(model)
    labels = {condition.name: condition.labels for condition in spec.conditions if condition.labels}
    return {
        "weights": model.checkpoint.weights_hash,
        "data_shape": json.dumps(spec.shape),
        "codebook_sizes": json.dumps(model.code_spec.codebook_sizes),
        **({"codes_per_second": f"{per_second:.10g}"} if per_second else {}),
        **({"labels": json.dumps(labels)} if labels else {}),
    }


def codes_per_second(model: Model) -> float | None:
    """How many codes a second of data has; None where the data is not in time, or no code has a place in it."""
    spec, code_spec = model.spec, model.code_spec
    rate = spec.rates[0] if spec.rates else None
    return None if rate is None or code_spec.parts else prod(code_spec.shape) * rate / spec.axes[0]


def _encoded(model: Model, items: Sequence[Item], progress: Callable[[int], None]) -> Iterator[list[Encoded]]:
    """Some examples at a time, or a long file."""
    waiting: list[tuple[str, dict[str, Tensor]]] = []
    for number, item in enumerate(items, 1):
        row = item.read()
        if isinstance(row, LongFile):
            if waiting:
                yield _together(model, waiting)
                waiting = []
            codes, axes = encode(model, row)
            yield [Encoded(item.name(), _kept(model, codes), axes, {})]
            progress(number)
            continue
        waiting.append((item.name(), row))
        if len(waiting) < BATCH and number < len(items) and sum(row["x"].numel() for _, row in waiting) < MOST:
            continue
        yield _together(model, waiting)
        waiting = []
        progress(number)
    if waiting:
        yield _together(model, waiting)


def _together(model: Model, rows: Sequence[tuple[str, dict[str, Tensor]]]) -> list[Encoded]:
    codes = encode_examples(model, [row["x"] for _, row in rows])
    return [
        Encoded(name, _kept(model, code), tuple(row.pop("x").shape[1:]), row)
        for (name, row), code in zip(rows, codes, strict=True)
    ]


def _kept(model: Model, codes: Tensor) -> np.ndarray:
    """Codes as they wait for the file, in its type."""
    return codes.numpy().astype(code_type(model.code_spec))


def _joined(group: Sequence[Encoded], longest: int) -> dict[str, Tensor]:
    """Examples of one shape as one batch of the file."""
    return {
        **{name: torch.stack([example.labels[name] for example in group]) for name in group[0].labels},
        "codes": torch.from_numpy(np.stack([example.codes for example in group]).astype(np.int64)),
        KEY: to_bytes([example.name for example in group], longest),
    }


def _padded(groups: Iterator[list[Encoded]], longest: int) -> Iterator[dict[str, Tensor]]:
    """Examples of any length, each filled up to the longest of all."""
    examples = [example for group in groups for example in group]
    shape = _largest(example.codes for example in examples)
    shapes = {name: _largest(example.labels[name] for example in examples) for name in examples[0].labels}
    for example in examples:
        codes = np.zeros(shape, np.int64)
        codes[tuple(map(slice, example.codes.shape))] = example.codes
        labels = {name: _filled(value, shapes[name]) for name, value in example.labels.items()}
        row = _joined([example._replace(codes=codes, labels=labels)], longest)
        yield {**row, "axes": torch.tensor([example.axes])}


def _largest(arrays: Iterable[np.ndarray | Tensor]) -> tuple[int, ...]:
    """The shape that holds each of them."""
    return tuple(map(max, zip(*(tuple(array.shape) for array in arrays), strict=True)))


def _filled(label: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Steps of a label, and zeros behind them."""
    whole = label.new_zeros(shape)
    whole[tuple(map(slice, label.shape))] = label
    return whole
