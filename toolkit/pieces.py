"""What comes in pieces: stages that are pushed a piece at a time, and give what is certain by then.

A stage that is pushed serves both ways: data that arrives is pushed into it, and an iterable is pushed through it.
Pieces are ``(batch, channels, positions, …)`` of any lengths and follow each other along axis 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
A = TypeVar("A")
B = TypeVar("B")


class Stage(Protocol[In, Out]):
    """Takes pieces and gives others. What ``push`` and ``flush`` return is to be read to its end."""

    def push(self, piece: In) -> Iterator[Out]:
        """What is certain with one piece more."""

    def flush(self) -> Iterator[Out]:
        """The rest, once there is no other piece."""


def through(stage: Stage[A, B], pieces: Iterable[A]) -> Iterator[B]:
    """All pieces through a stage, one after the other."""
    for piece in pieces:
        yield from stage.push(piece)
    yield from stage.flush()


class Each(Generic[A, B]):
    """A function of every piece by itself."""

    def __init__(self, function: Callable[[A], B]) -> None:
        self.function = function

    def push(self, piece: A) -> Iterator[B]:
        yield self.function(piece)

    def flush(self) -> Iterator[B]:
        return iter(())


class Chain:
    """Stages in a row."""

    def __init__(self, first: Stage[Any, Any], *rest: Stage[Any, Any]) -> None:
        self.first, self.rest = first, Chain(*rest) if rest else None

    def push(self, piece: Any) -> Iterator[Any]:
        given = self.first.push(piece)
        return given if self.rest is None else self._on(self.rest, given)

    def flush(self) -> Iterator[Any]:
        yield from self.first.flush() if self.rest is None else self._on(self.rest, self.first.flush())
        if self.rest is not None:
            yield from self.rest.flush()

    @staticmethod
    def _on(rest: Chain, given: Iterator[Any]) -> Iterator[Any]:
        for piece in given:
            yield from rest.push(piece)


class Filling:
    """The pieces, and the last position again until there is a whole number of ``unit``, with ``lead`` before them."""

    def __init__(self, unit: int, lead: int = 0) -> None:
        self.unit, self.lead, self.length = unit, lead, 0
        self.last: Tensor | None = None

    def push(self, piece: Tensor) -> Iterator[Tensor]:
        if piece.shape[2]:
            self.length, self.last = self.length + piece.shape[2], piece[:, :, -1:].clone()
            yield piece

    def flush(self) -> Iterator[Tensor]:
        missing = -(self.length + self.lead) % self.unit
        if self.last is not None and missing:
            yield repeated(self.last, missing)


class Window(NamedTuple):
    """A chunk of the joined pieces, with its context as far as there is any."""

    t: Tensor
    """``(batch, channels, positions, …)``."""
    first: int
    """Where it begins in the whole."""
    own: slice
    """The chunk in it."""


class Windows:
    """Chunks of ``least`` to ``most`` positions with ``before`` and ``after`` around them, as soon as these are there.

    A chunk is a multiple of ``least``, and the last ones whatever is left. ``least`` None: nothing before the end, and
    one chunk then where ``most`` is None, too. A window begins at a multiple of ``unit``, and is filled up to one with
    its last position where the whole goes on: no chunk depends on what is beyond ``after``. No more than a window and a
    piece are kept.
    """

    def __init__(self, least: int | None, most: int | None, before: int = 0, after: int = 0, unit: int = 1) -> None:
        self.least, self.most, self.before, self.after, self.unit = least, most, before, after, unit
        self.kept, self.at = _Kept(), 0

    def push(self, piece: Tensor) -> Iterator[Window]:
        """Axis 2 may be empty."""
        self.kept.add(piece)
        while self.least is not None and (certain := self.kept.stop - self.after - self.at) >= self.least:
            size = certain if self.most is None else min(certain, self.most)
            yield from self._next(size // self.least * self.least, ended=False)

    def flush(self) -> Iterator[Window]:
        while (left := self.kept.stop - self.at) > 0:  # what was kept as context is more chunks where it is longer
            yield from self._next(left if self.most is None else min(left, self.most), ended=True)

    def _next(self, size: int, ended: bool) -> Iterator[Window]:
        first = self._first()
        stop = min(self.kept.stop, self.at + size + self.after)
        t, goes_on = self.kept.joined(first, stop), not ended or stop < self.kept.stop
        if goes_on and (missing := -t.shape[2] % self.unit):
            t = torch.cat([t, repeated(t[:, :, -1:], missing)], 2)
        yield Window(t, first, slice(self.at - first, self.at - first + size))
        self.at += size
        self.kept.forget(self._first())

    def _first(self) -> int:
        return max(0, self.at - self.before) // self.unit * self.unit


class _Kept:
    """The positions ``start`` to ``stop`` of the whole."""

    def __init__(self) -> None:
        self.pieces, self.start, self.stop = list[Tensor](), 0, 0

    def add(self, piece: Tensor) -> None:
        if piece.shape[2]:
            self.pieces.append(piece)
            self.stop += piece.shape[2]

    def joined(self, first: int, stop: int) -> Tensor:
        if len(self.pieces) > 1:
            self.pieces = [torch.cat(self.pieces, 2)]
        return self.pieces[0][:, :, first - self.start : stop - self.start]

    def forget(self, first: int) -> None:
        """What is before a position, and its memory."""
        if self.pieces and first > self.start:
            self.pieces = [self.joined(first, self.stop).clone()]
            self.start = first


def slide(pieces: Iterable[Tensor], size: int | None, before: int = 0, after: int = 0) -> Iterator[Window]:
    """Chunks of ``size`` positions along axis 2, the last one shorter; of None, all at once. Of no positions none."""
    return through(Windows(size, size, before, after), pieces)


def repeated(last: Tensor, n: int) -> Tensor:
    """A single position ``(batch, channels, 1, …)`` n times."""
    return last.expand(*(-1 if axis != 2 else n for axis in range(last.dim())))
