"""The file that compressed examples are in; docs/compress.md describes it byte by byte."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import prod
from typing import Any

from toolkit.errors import ToolkitError

MAGIC = b"\x93TKC"
VERSION = 1
SUFFIX = ".tkc"
DIGEST = 8
"""Bytes of the checksum at the end."""
LARGEST_HEADER = 1 << 28
"""Bytes of a header as text: a small file may unpack to any size."""


LARGEST = 1 << 30
"""Most positions of an example."""
MOST_ROWS = 1 << 12
"""Most examples side by side."""


class UnreadableError(ToolkitError):
    """Compressed data that is damaged, or cannot be read here; its text says why. ``place``: of several, which."""

    def __init__(self, text: str, place: int = 0) -> None:
        super().__init__(text)
        self.place = place


@dataclass(frozen=True)
class Example:
    """What is known of an example beside its numbers."""

    name: str
    """Of the file that it comes from; may be empty."""
    axes: tuple[int, ...]
    """Of its data."""
    grid: tuple[int, ...]
    """Of its codes."""


@dataclass(frozen=True)
class Header:
    """What a reader must know before the first number."""

    weights: str
    """Hash of the autoencoder's weights."""
    prior: str
    """The prior's name."""
    prior_weights: str
    """Hash of its weights; empty where it has none."""
    lossless: bool
    """Whether the data follows the codes."""
    depth: int
    """How many codes of a position are in the file."""
    data_shape: tuple[int, ...]
    codebook_sizes: tuple[int, ...]
    rows: int
    """How many examples were coded side by side, at most: arithmetic rounds differently for other numbers of them."""
    row: int
    """The place of a single example among those that it was coded with."""
    examples: tuple[Example, ...]
    conditions: Mapping[str, Any] = field(default_factory=dict)
    """Values of all examples, by name."""
    environment: Mapping[str, str] | None = None
    """What else the probabilities depend on; None where they are the same everywhere."""
    check: str = ""
    """Hash of what comes out."""


def pack(header: Header, stream: bytes) -> bytes:
    """One file."""
    text = zlib.compress(json.dumps(asdict(header), separators=(",", ":")).encode(), 9)
    body = MAGIC + bytes([VERSION]) + len(text).to_bytes(4, "little") + text + stream
    return body + _digest(body)


def unpack(data: bytes) -> tuple[Header, bytes]:
    """The header and the stream; UnreadableError for anything else than a whole file of this version."""
    start = len(MAGIC) + 5
    if not data.startswith(MAGIC):
        raise UnreadableError("not a file that toolkit compress wrote")
    if len(data) > len(MAGIC) and data[len(MAGIC)] != VERSION:
        raise UnreadableError(f"its format is version {data[len(MAGIC)]}: this toolkit reads version {VERSION}")
    body, digest = data[:-DIGEST], data[-DIGEST:]
    size = int.from_bytes(data[len(MAGIC) + 1 : start], "little")
    if len(data) < start + size + DIGEST or _digest(body) != digest:
        raise UnreadableError("damaged or cut short: its checksum is another one")
    return _header(body[start : start + size]), body[start + size :]


def _header(packed: bytes) -> Header:
    try:
        unpacking = zlib.decompressobj()
        text = unpacking.decompress(packed, LARGEST_HEADER)
        if unpacking.unconsumed_tail or not unpacking.eof:
            raise ValueError("too long")
        values = json.loads(text)
        if set(values) != {f.name for f in fields(Header)}:
            raise ValueError("other fields")
        examples = tuple(Example(str(e["name"]), _sizes(e["axes"]), _sizes(e["grid"])) for e in values.pop("examples"))
        shape, sizes = _sizes(values.pop("data_shape")), _sizes(values.pop("codebook_sizes"))
        header = Header(examples=examples, data_shape=shape, codebook_sizes=sizes, **values)
        _check(header)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, zlib.error) as e:
        raise UnreadableError(f"its header is not one that toolkit compress wrote: {e}") from e
    return header


def _sizes(values: Any) -> tuple[int, ...]:
    sizes = tuple(values)
    if not all(type(size) is int and 0 < size < 1 << 40 for size in sizes):
        raise ValueError(f"sizes {sizes}")
    return sizes


def _check(header: Header) -> None:
    """ValueError for values of other types, which would be wrong later."""
    texts = (header.weights, header.prior, header.prior_weights, header.check)
    numbers = (header.depth, header.rows, header.row)
    if not all(isinstance(text, str) for text in texts) or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError("values of other types")
    if any(prod(example.grid) > LARGEST or prod(example.axes) > LARGEST for example in header.examples):
        raise ValueError("an example larger than any")
    if not header.examples or not 0 < header.rows <= MOST_ROWS or header.row >= header.rows or header.depth < 1:
        raise ValueError("no examples, or none of a place among its rows")
    if type(header.lossless) is not bool or not isinstance(header.conditions, dict):
        raise ValueError("values of other types")
    if header.environment is not None and not isinstance(header.environment, dict):
        raise ValueError("values of other types")


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=DIGEST).digest()
