"""Entropy coders over constriction's range coder: many examples side by side, in one stream or in one each.

Range coding: Martin 1979. constriction: Bamler 2022 (arXiv:2201.01741); its probabilities have 24 bits, none is zero.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from math import log2
from typing import Any, final

import constriction  # type: ignore[import-untyped]
import numpy as np
import torch
from torch import Tensor

from toolkit.entropy import EntropyCoder
from toolkit.errors import ToolkitError

RangeEncoder = constriction.stream.queue.RangeEncoder
RangeDecoder = constriction.stream.queue.RangeDecoder

LARGEST = 1 << 24
"""Most entries of a codebook: as many as its probabilities can tell apart."""

Table = np.ndarray | None
"""Probabilities ``(numbers, size)``; None where all are equally likely."""


class _Rows(EntropyCoder):
    """Goes through a stream per row, or through one that all rows share; then all rows of a step go at once.

    ``counts``: how many numbers each row has in all. What comes after them is 0 and takes no place.
    """

    def __init__(self, streams: Sequence[Any], counts: Sequence[int]) -> None:
        self.streams, self.left = list(streams), np.array(counts, dtype=np.int64)
        self.joint = len({id(stream) for stream in streams}) == 1

    def code(self, probs: Tensor, values: Tensor | None) -> Tensor:
        wide = probs.detach().to("cpu", torch.promote_types(probs.dtype, torch.float32)).numpy()
        if not np.isfinite(wide).all():
            raise ToolkitError("a probability is NaN or infinite: the weights of this run are damaged or diverged")
        return self._coded(probs.shape[2], probs[:, :, 0], values, lambda rows, count: wide[rows, :count])

    def code_uniform(self, size: int, like: Tensor, values: Tensor | None) -> Tensor:
        return self._coded(size, like, values, lambda rows, count: None)

    def _coded(self, size: int, like: Tensor, values: Tensor | None, table: Callable[[slice, int], Table]) -> Tensor:
        if size > LARGEST:
            raise ToolkitError(f"a codebook of {size:,} entries: at most {LARGEST:,} can be told apart in a file")
        batch, count = like.shape
        taken = np.minimum(self.left, count)
        self.left -= taken
        given = np.zeros((batch, count), np.int32) if values is None else values.detach().cpu().numpy().astype(np.int32)
        coded = np.zeros((batch, count), np.int64)
        whole = self.joint and bool((taken == count).all())
        stretches = [(slice(0, batch), count)] if whole else [(slice(r, r + 1), int(taken[r])) for r in range(batch)]
        for rows, some in stretches:
            if some and size > 1:
                probs = table(rows, some)
                flat = None if probs is None else np.ascontiguousarray(probs.reshape(-1, size))
                numbers = self._pass(self.streams[rows.start], size, flat, given[rows, :some].reshape(-1))
                coded[rows, :some] = numbers.reshape(-1, some)
        return torch.from_numpy(coded).to(like.device)

    @abstractmethod
    def _pass(self, stream: Any, size: int, table: Table, given: np.ndarray) -> np.ndarray:
        """Numbers ``(count,)`` through one stream."""


@final
class Writer(_Rows):
    """``bits``: what was written, at the numbers' own probabilities; the streams are a few bits longer."""

    bits = 0.0

    def _pass(self, stream: Any, size: int, table: Table, given: np.ndarray) -> np.ndarray:
        if table is None:
            stream.encode(given, constriction.stream.model.Uniform(size))
            self.bits += len(given) * log2(size)
            return given
        stream.encode(given, _FAMILY, table)
        own = table[np.arange(len(given)), given].astype(np.float64) / table.sum(1, dtype=np.float64)
        self.bits -= float(np.log2(np.maximum(own, 1 / LARGEST)).sum())
        return given


@final
class Reader(_Rows):
    """Reads what a Writer wrote with the same counts, in as many rows."""

    def _pass(self, stream: Any, size: int, table: Table, given: np.ndarray) -> np.ndarray:
        if table is None:
            return np.asarray(stream.decode(constriction.stream.model.Uniform(size), len(given)))
        return np.asarray(stream.decode(_FAMILY, table))


_FAMILY = constriction.stream.model.Categorical(perfect=False)

WORD, STATE = 32, 64
"""Bits of its words, and of its state."""


def seal(stream: Any) -> bytes:
    """The stream in as few bytes as tell it apart from all others: at most one more than its bits need.

    The state is an interval: any number in it will do, and that with the most zero bytes at its end is the shortest,
    as ``unseal`` puts zeros back. (The library itself ends with one or two whole words.)
    """
    count, (lower, width) = stream.pos()
    words = stream.get_compressed()
    bits = count * WORD + STATE
    inside = int.from_bytes(words.astype(">u4").tobytes(), "big") << (bits - WORD * len(words))
    lower = inside - (inside - lower) % (1 << STATE)  # with the carries that its own number has not
    for size in range(bits // 8):
        rest = bits - 8 * size
        number: int = -(-lower >> rest)
        if number << rest < lower + width:
            return number.to_bytes(size, "big")
    return int(lower).to_bytes(bits // 8, "big")


def unseal(data: bytes) -> Any:
    """A stream to be read."""
    padded = data + bytes(-len(data) % 4 + STATE // 8)
    return RangeDecoder(np.frombuffer(padded, ">u4").astype(np.uint32))
