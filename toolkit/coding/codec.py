"""Examples to bytes and back: their codes under a prior, and where asked for the data under the likelihood."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.autoencoder import Autoencoder
from toolkit.coding.container import Example, Header, UnreadableError, pack
from toolkit.coding.environment import check_environment, environment, threads
from toolkit.coding.range_coder import RangeEncoder, Reader, Writer, seal, unseal
from toolkit.coding.windows import code_through
from toolkit.entropy import EntropyCoder
from toolkit.errors import ToolkitError
from toolkit.fit import device_of
from toolkit.prior import Prior

ROWS = 64
"""Examples coded side by side."""

Coding = Callable[[Sequence[int]], EntropyCoder]
"""Gives the coder of the next numbers, how many of each row."""


@dataclass(frozen=True)
class Codec:
    """What a run's examples are coded by.

    ``autoencoders``: the run's own, and those below it where it is over another run's codes. ``weights`` and
    ``prior_weights`` are the hashes of what they were loaded from.
    """

    autoencoders: tuple[Autoencoder, ...]
    prior: Prior
    prior_name: str
    weights: str
    prior_weights: str
    lossless: bool = False
    depth: int | None = None

    @property
    def device(self) -> torch.device:
        return device_of(self.autoencoders[0])

    @property
    def kept_depth(self) -> int:
        """How many codes of a position are kept."""
        return self.depth or self.autoencoders[0].code_spec.depth


class Row(NamedTuple):
    """An example to be coded, or as it comes out."""

    example: Example
    codes: Tensor
    """``(depth, *grid)``."""
    x: Tensor | None
    """``(channels, *axes)`` where the data itself is kept."""
    conditions: Mapping[str, Tensor]
    """Values by name, without a batch."""


class Packed(NamedTuple):
    """A file's bytes."""

    data: bytes
    stream: int
    """How many of them are numbers; the others are the header."""
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
            {name: value[i].cpu() for name, value in conditions.items()},
        )
        for i in range(len(x))
    ]


def compress(codec: Codec, rows: Sequence[Row], progress: Callable[[int], None] = lambda _: None) -> Packed:
    """All examples as one file; batches of them share one stream."""
    stream, bits, done = RangeEncoder(), 0.0, 0
    for batch in _batches(codec.lossless, [row.example for row in rows], ROWS):
        some = [rows[i] for i in batch]
        bits += _write(codec, [stream] * len(some), some)
        done += len(some)
        progress(done)
    data = seal(stream)
    return Packed(pack(_header(codec, rows, min(ROWS, len(rows)), 0), data), len(data), bits)


def compress_each(
    codec: Codec, rows: Sequence[Row], progress: Callable[[int], None] = lambda _: None
) -> Iterator[Packed]:
    """A file per example, coded side by side all the same."""
    done = 0
    for batch in _batches(codec.lossless, [row.example for row in rows], ROWS):
        streams = [RangeEncoder() for _ in batch]
        bits = _write(codec, streams, [rows[i] for i in batch])
        for place, (i, stream) in enumerate(zip(batch, streams, strict=True)):
            data = seal(stream)
            yield Packed(pack(_header(codec, [rows[i]], len(batch), place), data), len(data), bits / len(batch))
        done += len(batch)
        progress(done)


def decompress(
    codec: Codec, header: Header, stream: bytes, progress: Callable[[int], None] = lambda _: None
) -> list[Row]:
    """The examples of a file; UnreadableError where they cannot be those that were written."""
    check(codec, header)
    decoder, rows = unseal(stream), list[Row]()
    with threads(header.environment):
        for batch in _batches(header.lossless, header.examples, header.rows):
            some = [header.examples[i] for i in batch]
            conditions = _conditions(codec, header, batch)
            if len(header.examples) == 1:  # whose neighbors are in other files
                codes, x = _read_alone(codec, decoder, some[0], header.rows, header.row, conditions)
            else:
                codes, x = _code(codec, partial(Reader, [decoder] * len(some)), some, conditions, None, None)
            known = [{name: value[i] for name, value in conditions.items()} for i in range(len(some))]
            rows += [
                Row(example, _on_grid(codes[i], example.grid), None if x is None else x[i], known[i])
                for i, example in enumerate(some)
            ]
            progress(len(rows))
    if _hash(rows) != header.check:
        raise UnreadableError("what it gives is not what was written: this machine rounds its probabilities otherwise")
    return rows


def check(codec: Codec, header: Header) -> None:
    """UnreadableError where a file was written by other weights, of other data, or in another environment."""
    own = codec.autoencoders[0]
    if header.weights != codec.weights:
        raise UnreadableError("it was written by another run, or by other weights of this one")
    if header.prior_weights != codec.prior_weights:
        raise UnreadableError(f"it was written by other weights of prior={header.prior}")
    if header.codebook_sizes != own.code_spec.codebook_sizes or header.depth > own.code_spec.depth:
        raise UnreadableError("its codes are not this run's")
    if header.environment is not None:
        check_environment(header.environment, codec.device)
    elif header.lossless or not codec.prior.portable:
        raise UnreadableError("it does not say on what machine it was written")
    rank = len(own.code_spec.grid)
    if any(len(example.grid) != rank for example in header.examples):
        raise UnreadableError("its codes lie on another grid")


def _write(codec: Codec, streams: list[RangeEncoder], rows: Sequence[Row]) -> float:
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
    _code(codec, coding, [row.example for row in rows], conditions, codes.to(codec.device), x)
    return sum(writer.bits for writer in writers)


def _read_alone(
    codec: Codec, decoder: object, example: Example, rows: int, row: int, conditions: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor | None]:
    """An example in the place that it had beside others: with other numbers of rows, products round differently."""

    def coding(counts: Sequence[int]) -> Reader:
        return Reader([decoder] * rows, [count if i == row else 0 for i, count in enumerate(counts)])

    known = {name: value.expand(rows, *value.shape[1:]) for name, value in conditions.items()}
    codes, x = _code(codec, coding, [example] * rows, known, None, None)
    return codes[row : row + 1], None if x is None else x[row : row + 1]


@torch.no_grad()
def _code(
    codec: Codec,
    coding: Coding,
    examples: Sequence[Example],
    conditions: Mapping[str, Tensor],
    codes: Tensor | None,
    x: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Codes ``(n, depth, positions)`` and, where it is kept, the data of examples, through a coder both ways."""
    own, grids = codec.autoencoders[0], [example.grid for example in examples]
    coder = coding([codec.kept_depth * prod(grid) for grid in grids])
    try:
        codes = code_through(codec.prior, own, coder, grids, conditions, codes, codec.depth)
    except NotImplementedError as e:
        raise ToolkitError(
            f"prior={codec.prior_name} cannot code {'these codes' if codec.depth is None else f'depth={codec.depth}'}:"
            f" {e}; prior=uniform can"
        ) from e
    if not codec.lossless:
        return codes, None
    return codes, _data(codec.autoencoders, coding, codes.unflatten(2, grids[0]), x, conditions)


def _data(
    autoencoders: Sequence[Autoencoder],
    coding: Coding,
    codes: Tensor,
    x: Tensor | None,
    conditions: Mapping[str, Tensor],
) -> Tensor:
    """Data given all its codes; of a run over another run's codes, these first, and then the data given them."""
    own, *below = autoencoders
    modeled = x
    for autoencoder in reversed(below) if x is not None else ():
        modeled = autoencoder.quantize(modeled).codes  # type: ignore[arg-type]
    with torch.autocast(codes.device.type, enabled=False):
        likelihood = own.decode(own.embed(codes), conditions)
    try:
        coded = likelihood.entropy_code(coding([prod(likelihood.shape)] * len(codes)), modeled)
    except NotImplementedError as e:
        raise ToolkitError(f"lossless=true: {e}; choose a likelihood of levels, such as logistic") from e
    return coded if not below else _data(below, coding, coded, x, conditions)


def _batches(lossless: bool, examples: Sequence[Example], rows: int) -> Iterator[list[int]]:
    """Which examples are coded side by side: the next ones, of one shape where the data is kept."""
    batch = list[int]()
    for i, example in enumerate(examples):
        if batch and (len(batch) == rows or (lossless and _shape(example) != _shape(examples[batch[0]]))):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


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
        check=_hash([row._replace(codes=row.codes[: codec.kept_depth]) for row in rows]),
    )


def _conditions(codec: Codec, header: Header, batch: Sequence[int]) -> dict[str, Tensor]:
    """Of the examples of a batch; UnreadableError where they are not this run's."""
    known = {condition.name: condition for condition in codec.autoencoders[-1].data.conditions}
    conditions = {}
    try:
        for name, values in header.conditions.items():
            value = torch.tensor([values[i] for i in batch])
            real = known[name].real
            if value.is_floating_point() != real or (
                not real and bool(((value < 0) | (value > known[name].size)).any())
            ):
                raise ValueError(name)
            conditions[name] = value.to(codec.device)
    except (KeyError, IndexError, TypeError, ValueError) as e:
        raise UnreadableError(f"its conditions are not this run's: {e}") from e
    return conditions


def _on_grid(codes: Tensor, grid: tuple[int, ...]) -> Tensor:
    """The codes ``(depth, *grid)`` among those ``(depth, positions)``, which may have been filled up."""
    return codes[:, : prod(grid)].unflatten(1, grid).cpu()


def _hash(rows: Sequence[Row]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for row in rows:
        for t in (row.codes, row.x):
            if t is not None:
                digest.update(t.cpu().long().contiguous().numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def _shape(example: Example) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return example.axes, example.grid
