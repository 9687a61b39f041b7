"""Examples to bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from toolkit.coding.codec import ROWS, Codec, Row, batches, code_rows, digest
from toolkit.coding.container import Example, Header, pack
from toolkit.coding.environment import environment
from toolkit.coding.range_coder import RangeEncoder, Writer, seal


class Packed(NamedTuple):
    """A file's bytes."""

    data: bytes
    stream: int
    """How many of them are numbers."""
    header: int
    """And how many are not."""
    bits: float
    """What the numbers cost at their probabilities, if there were no files."""


def rows_of(
    codec: Codec, x: Tensor, codes: Tensor, conditions: Mapping[str, Tensor], names: Sequence[str] = ()
) -> list[Row]:
    """The examples of a batch x ``(n, channels, *axes)`` and its codes."""
    x = x.long() if codec.lossless else x
    return [
        Row(
            Example(names[i] if names else "", tuple(x.shape[2:]), tuple(codes.shape[2:])),
            codes[i].cpu(),
            x[i].cpu() if codec.lossless else None,
            {name: value[i].cpu() for name, value in conditions.items() if name in codec.seen},
        )
        for i in range(len(x))
    ]


def compress(codec: Codec, rows: Sequence[Row], progress: Callable[[int], None] = lambda _: None) -> Packed:
    """All examples as one file; batches of them share one stream."""
    stream, bits, done = RangeEncoder(), 0.0, 0
    for batch in batches(codec.lossless, [row.example for row in rows], ROWS):
        some = [rows[i] for i in batch]
        bits += _write(codec, [stream] * len(some), some)
        done += len(some)
        progress(done)
    data = seal(stream)
    return _packed(_header(codec, rows, min(ROWS, len(rows)), 0), data, bits)


def compress_each(
    codec: Codec, rows: Sequence[Row], progress: Callable[[int], None] = lambda _: None
) -> Iterator[Packed]:
    """A file per example, coded side by side all the same."""
    done = 0
    for batch in batches(codec.lossless, [row.example for row in rows], ROWS):
        streams = [RangeEncoder() for _ in batch]
        bits = _write(codec, streams, [rows[i] for i in batch])
        for place, (i, stream) in enumerate(zip(batch, streams, strict=True)):
            data = seal(stream)
            yield _packed(_header(codec, [rows[i]], len(batch), place), data, bits / len(batch))
        done += len(batch)
        progress(done)


def _packed(header: Header, stream: bytes, bits: float) -> Packed:
    data = pack(header, stream)
    return Packed(data, len(stream), len(data) - len(stream), bits)


def _write(codec: Codec, streams: list[Any], rows: Sequence[Row]) -> float:
    """Returns the bits at the numbers' probabilities."""
    writers = list[Writer]()

    def coding(counts: Sequence[int]) -> Writer:
        writers.append(Writer(streams, counts))
        return writers[-1]

    positions, depth = max(prod(row.example.grid) for row in rows), codec.kept_depth
    codes = torch.zeros(len(rows), depth, positions, dtype=torch.int64)
    for i, row in enumerate(rows):
        codes[i, :, : prod(row.example.grid)] = row.codes[:depth].flatten(1)
    x = torch.stack([row.x for row in rows if row.x is not None]).to(codec.device) if codec.lossless else None
    conditions = {
        name: torch.stack([row.conditions[name] for row in rows]).to(codec.device) for name in rows[0].conditions
    }
    code_rows(codec, coding, [row.example for row in rows], conditions, codes.to(codec.device), x)
    return sum(writer.bits for writer in writers)


def _header(codec: Codec, rows: Sequence[Row], together: int, place: int) -> Header:
    own = codec.autoencoders[0]
    portable = codec.prior.portable and not codec.lossless
    return Header(
        weights=codec.weights,
        prior=codec.prior_name,
        prior_weights=codec.prior_weights,
        lossless=codec.lossless,
        depth=codec.kept_depth,
        data_shape=codec.autoencoders[-1].data.shape,
        codebook_sizes=own.code_spec.codebook_sizes,
        rows=together,
        row=place,
        examples=tuple(row.example for row in rows),
        conditions={name: [row.conditions[name].tolist() for row in rows] for name in rows[0].conditions},
        environment=None if portable else environment(codec.device),
        check=digest([row._replace(codes=row.codes[: codec.kept_depth]) for row in rows]),
    )
