"""Bytes to examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from toolkit.coding.codec import Codec, Row, batches, code_rows, digest, shape_of
from toolkit.coding.container import Example, Header, UnreadableError
from toolkit.coding.environment import difference, threads
from toolkit.coding.range_coder import Reader, unseal
from toolkit.spec import Condition


def decompress(
    codec: Codec, header: Header, stream: bytes, progress: Callable[[int], None] = lambda _: None
) -> list[Row]:
    """The examples of a file; UnreadableError where they cannot be those that were written."""
    if len(header.examples) == 1:
        return decompress_each(codec, [(header, stream)], progress)
    check(codec, header)
    decoder, rows = unseal(stream), list[Row]()
    with threads(header.environment):
        for batch in batches(header.lossless, header.examples, header.rows):
            some = [header.examples[i] for i in batch]
            conditions = _conditions(codec, header, batch)
            codes, x = code_rows(codec, partial(Reader, [decoder] * len(some)), some, conditions, None, None)
            rows += [_row(example, i, codes, x, conditions) for i, example in enumerate(some)]
            progress(len(rows))
    _check_result(rows, header)
    return rows


def decompress_each(
    codec: Codec, files: Sequence[tuple[Header, bytes]], progress: Callable[[int], None] = lambda _: None
) -> list[Row]:
    """The one example of each file. They are read side by side, each in the row that it was written in: in another
    number of rows, products round differently; what the other rows hold changes nothing."""
    rows = dict[int, Row]()
    for i, (header, _) in enumerate(files):
        check(codec, header, i)
    for places in _side_by_side(files):
        first = files[places[0]][0]
        decoders: list[Any] = [None] * first.rows
        counts, examples = [0] * first.rows, [first.examples[0]] * first.rows
        for i in places:
            header, stream = files[i]
            decoders[header.row], counts[header.row] = unseal(stream), 1
            examples[header.row] = header.examples[0]

        def coding(numbers: Sequence[int], decoders: list[Any] = decoders, counts: list[int] = counts) -> Reader:
            return Reader(decoders, [n * count for n, count in zip(numbers, counts, strict=True)])

        conditions = _apart(codec, [files[i][0] for i in places])
        with threads(first.environment):
            codes, x = code_rows(codec, coding, examples, conditions, None, None)
        for i in places:
            header = files[i][0]
            rows[i] = _row(header.examples[0], header.row, codes, x, conditions)
            _check_result([rows[i]], header, i)
        progress(len(rows))
    return [rows[i] for i in range(len(files))]


def _side_by_side(files: Sequence[tuple[Header, bytes]]) -> Iterator[list[int]]:
    """Files that can be read together: each of its own row among as many, the rest of what decides alike."""
    groups = dict[Any, list[list[int]]]()
    for i, (header, _) in enumerate(files):
        example = header.examples[0]
        environment = tuple(sorted((header.environment or {}).items()))
        alike = (header.rows, environment, tuple(header.conditions), shape_of(example) if header.lossless else None)
        batches = groups.setdefault(alike, [])
        free = (batch for batch in batches if all(files[j][0].row != header.row for j in batch))
        batch = next(free, None)
        if batch is None:
            batches.append([i])
        else:
            batch.append(i)
    for batches in groups.values():
        yield from batches


def _apart(codec: Codec, headers: Sequence[Header]) -> dict[str, Tensor]:
    """The conditions of examples in their rows; the other rows have those of the first."""
    parts = [_conditions(codec, header, [0]) for header in headers]
    conditions = {}
    for name, value in parts[0].items():
        conditions[name] = value.repeat(headers[0].rows, *[1] * (value.dim() - 1))
        for header, part in zip(headers, parts, strict=True):
            conditions[name][header.row] = part[name][0]
    return conditions


def _row(example: Example, i: int, codes: Tensor, x: Tensor | None, conditions: Mapping[str, Tensor]) -> Row:
    known = {name: value[i].cpu() for name, value in conditions.items()}
    return Row(example, _on_grid(codes[i], example.grid), None if x is None else x[i].cpu(), known)


def _check_result(rows: Sequence[Row], header: Header, place: int = 0) -> None:
    if digest(rows) != header.check:
        text = "what it gives is not what was written: this machine rounds its probabilities otherwise"
        raise UnreadableError(text, place)


def check(codec: Codec, header: Header, place: int = 0) -> None:
    """UnreadableError where a file was written by other weights, of other data, or in another environment."""
    reason = _mismatch(codec, header)
    if reason is None and header.environment is not None:
        reason = difference(header.environment, codec.device)
    if reason:
        raise UnreadableError(reason, place)


def _mismatch(codec: Codec, header: Header) -> str | None:
    spec = codec.autoencoders[0].code_spec
    if header.prior_weights != codec.prior_weights:
        return f"it was written by other weights of prior={header.prior}"
    if header.codebook_sizes != spec.codebook_sizes or header.depth > spec.depth:
        return "its codes are not this run's"
    if any(len(example.grid) != len(spec.grid) for example in header.examples):
        return "its codes lie on another grid"
    if header.environment is None and (header.lossless or not codec.prior.portable):
        return "it does not say on what machine it was written"
    return None


def _conditions(codec: Codec, header: Header, batch: Sequence[int]) -> dict[str, Tensor]:
    """Of the examples of a batch; UnreadableError where they are not this run's."""
    known = {condition.name: condition for condition in codec.autoencoders[-1].data.conditions}
    conditions = {}
    try:
        for name, values in header.conditions.items():
            value = torch.tensor([values[i] for i in batch])
            if known[name].text:
                conditions[name] = _texts(known[name], value).to(codec.device)
                continue
            real = known[name].real
            if value.is_floating_point() != real or (
                not real and bool(((value < 0) | (value > known[name].size)).any())
            ):
                raise ValueError(name)
            conditions[name] = value.to(codec.device)
    except (KeyError, IndexError, TypeError, ValueError) as e:
        raise UnreadableError(f"its conditions are not this run's: {e}") from e
    return conditions


def _texts(condition: Condition, value: Tensor) -> Tensor:
    """ValueError where numbers are no texts."""
    if value.dtype != torch.int64 or tuple(value.shape[1:]) != condition.value_shape:
        raise ValueError(condition.name)
    if (value < 0).any() or (value > 255).any():
        raise ValueError(condition.name)
    return value.to(torch.uint8)


def _on_grid(codes: Tensor, grid: tuple[int, ...]) -> Tensor:
    """The codes ``(depth, *grid)`` among those ``(depth, positions)``, which may have been filled up."""
    own: Tensor = codes[:, : prod(grid)].unflatten(1, grid)
    return own.cpu()
