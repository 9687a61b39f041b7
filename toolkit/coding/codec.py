"""What examples are coded by: their codes under a prior, and where asked for the data under the likelihood."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.autoencoder import Autoencoder
from toolkit.coding.container import Example
from toolkit.coding.windows import code_through
from toolkit.device import in_float32
from toolkit.entropy import EntropyCoder
from toolkit.errors import ToolkitError
from toolkit.fit import device_of
from toolkit.prior import Prior

ROWS = 64
"""Examples coded side by side."""

WHOLE = 1 << 62
"""More numbers than any example has: rows of data are alike, and a likelihood may take several numbers for one of x."""

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
    seen: frozenset[str] = frozenset()
    """The conditions that the prior or the decoder sees."""

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


@torch.no_grad()
def code_rows(
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
    with in_float32(codes.device):
        for autoencoder in reversed(below) if x is not None else ():
            modeled = autoencoder.quantize(modeled).codes  # type: ignore[arg-type]
        likelihood = own.decode(own.embed(codes), conditions)
    try:
        coded = likelihood.entropy_code(coding([WHOLE] * len(codes)), modeled)
    except NotImplementedError as e:
        raise ToolkitError(f"lossless=true: {e}; choose a likelihood of levels, such as logistic") from e
    return coded if not below else _data(below, coding, coded, x, conditions)


def batches(lossless: bool, examples: Sequence[Example], rows: int) -> Iterator[list[int]]:
    """Which examples are coded side by side: the next ones, of one shape where the data is kept."""
    batch = list[int]()
    for i, example in enumerate(examples):
        if batch and (len(batch) == rows or (lossless and shape_of(example) != shape_of(examples[batch[0]]))):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def digest(rows: Sequence[Row]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for row in rows:
        for t in (row.codes, row.x):
            if t is not None:
                digest.update(t.cpu().long().contiguous().numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def shape_of(example: Example) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return example.axes, example.grid
