"""Shapes and sizes of data, conditions and codes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from math import log2, prod
from typing import TYPE_CHECKING, Any, cast

from toolkit.errors import ToolkitError

if TYPE_CHECKING:
    from torch import Tensor

CodeGrid = tuple[int, ...] | tuple[tuple[int, ...], ...]
"""A grid, such as ``(4, 4)``, or the parts of a flat one, such as ``((1, 1), (2, 2), (4, 4))``."""


@dataclass(frozen=True)
class Condition:
    """Something known beside the data: a class, a speaker, an action per step.

    A categorical condition holds labels ``int64``, of shape ``(batch,)`` or, if ``per_step``,
    ``(batch, steps)``; the index ``size`` means "none" (dropped or unknown). A ``real`` condition is
    float ``(batch, size)`` or, if ``per_step``, ``(batch, steps, size)``. A step is ``stride`` positions of the
    data's first axis: 1 for an action per frame, more for a phone per hundredth of a second. Along a coarser axis,
    where a code covers several steps, each position holds ``steps_per_code`` of them, in order.

    A ``text`` is ``(batch, size)`` uint8: its bytes in UTF-8, at most ``size``, and zeros after them; all zeros mean
    "none". A conditioner reads it, for priors alone.
    """

    name: str
    size: int
    labels: tuple[str, ...] = ()
    per_step: bool = False
    real: bool = False
    stride: int = 1
    steps_per_code: int = 1
    text: bool = False

    def __post_init__(self) -> None:
        if self.text and (self.real or self.per_step or self.labels):
            raise ValueError(f"condition {self.name}: a text has no labels, is not real, and is of the whole example")

    @property
    def value_shape(self) -> tuple[int, ...]:
        """Shape of one value, or of one step's."""
        return (self.size,) if self.real or self.text else ()

    def steps(self, length: int) -> int:
        """Number of steps along a first axis of this length."""
        return length // self.stride * self.steps_per_code

    def check_steps(self, value: Tensor, length: int) -> None:
        """ToolkitError where a batch of values ``(batch, …)`` has steps, and not those of a first axis of this length.

        Networks lay steps along that axis: a sequence of a length of its own, such as the tokens of a text, would be
        averaged over positions that it says nothing of.
        """
        given, stepless = tuple(value.shape[1:]), self.value_shape
        if given == stepless:
            return
        if self.text:
            raise ToolkitError(
                f"condition.{self.name} has shape {tuple(value.shape)}: expected the bytes of texts,"
                f" (batch, {self.size}), or the texts themselves"
            )
        steps, wanted = self.steps(length), f"(batch{f', {self.size}' if self.real else ''})"
        if not self.per_step:
            raise ToolkitError(
                f"condition.{self.name} has shape {tuple(value.shape)}: expected {wanted}; a sequence, such as the"
                " tokens of a text, is no condition here: pool it to one value, or give the text itself (text=True)"
            )
        if given != (steps, *stepless):
            raise ToolkitError(
                f"condition.{self.name} has shape {tuple(value.shape)}: {length} positions of the data have {steps}"
                " steps; a sequence of a length of its own, such as the tokens of a text, is no condition here: pool it"
                f" to one value, {wanted}, or give the text itself (text=True)"
            )

    def resample(self, length: int, positions: int) -> Condition:
        """The same condition along an axis of ``positions`` codes for ``length`` positions of the data.

        Unchanged where neither count divides the other.
        """
        steps = self.steps(length) if self.per_step else 0
        if steps and steps % positions == 0:
            return replace(self, stride=1, steps_per_code=steps // positions)
        if steps and positions % steps == 0:
            return replace(self, stride=positions // steps, steps_per_code=1)
        return self

    def encoded(self, text: str) -> Tensor:
        """The value ``(size,)`` of a text. ValueError where it is too long, or has a character 0, which ends it."""
        import torch

        try:
            content = text.encode()
        except UnicodeEncodeError as e:
            raise ValueError(f"condition.{self.name}={text!r}: not a text in UTF-8") from e
        if len(content) > self.size:
            raise ValueError(
                f"condition.{self.name}={text}: it has {len(content)} bytes, and at most {self.size} are read"
            )
        if 0 in content:
            raise ValueError(f"condition.{self.name}={text!r}: a text cannot have the character 0")
        return torch.tensor([*content, *[0] * (self.size - len(content))], dtype=torch.uint8)

    def decoded(self, value: Tensor) -> str:
        """The text of a value ``(size,)``."""
        return bytes(value.tolist()).rstrip(b"\0").decode(errors="replace")

    def index(self, label: str) -> int:
        """The index of a label; a number is an index only where no label is spelled like it."""
        if label in self.labels:
            return self.labels.index(label)
        if label.isdecimal() and int(label) <= self.size:
            return int(label)
        near = get_close_matches(label, self.labels, n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        known = ", ".join(self.labels[:12]) + (", …" if len(self.labels) > 12 else "") or f"0..{self.size - 1}"
        raise ValueError(f"condition.{self.name}={label}: no such label{hint} (known: {known})")


@dataclass(frozen=True)
class PositionCondition(Condition):
    """Real values at every position of a grid, ``(batch, *grid, size)``, such as what is known of a coarser one.

    What a part computes and gives to another; no data has such. They are never dropped or unknown: guidance is by the
    other conditions alone.
    """

    real: bool = True


@dataclass(frozen=True)
class DataSpec:
    """The data ``x``: ``(batch, channels, *axes)``.

    ``levels``: x holds integers ``0..levels-1``; None: floats in [-1, 1].
    ``ordered``: False where levels are mere symbols, such as codes, which networks embed and never scale.
    ``varying``: which axes may differ in length between examples (empty: none).
    ``rates``: positions per second, by axis (empty: the axes are not time).
    ``variance``: of the scaled data over the training split, where known.
    """

    channels: int
    axes: tuple[int, ...]
    levels: int | None = None
    ordered: bool = True
    varying: tuple[bool, ...] = ()
    rates: tuple[float | None, ...] = ()
    variance: float | None = None
    conditions: tuple[Condition, ...] = field(default=())

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example: (channels, *axes)."""
        return (self.channels, *self.axes)

    @property
    def dims(self) -> int:
        """Numbers in one example, the "dim" of bits per dim."""
        return prod(self.shape)

    @property
    def rank(self) -> int:
        return len(self.axes)

    def last(self, rank: int | None) -> DataSpec:
        """The same data seen along its last ``rank`` axes (None: all)."""
        if rank is None or rank == self.rank:
            return self
        if rank > self.rank:
            raise ValueError(f"the data has {self.rank} axes {self.axes}, but {rank} are needed")
        return replace(self, axes=self.axes[-rank:], varying=self.varying[-rank:], rates=self.rates[-rank:])

    def scale(self, x: Tensor) -> Tensor:
        """Levels to [-1, 1]; the identity on data without levels."""
        if not self.ordered:
            raise TypeError("unordered data has no scale: embed it")
        if self.levels is None:
            return x
        import torch

        return x.to(torch.get_default_dtype()) * (2 / (self.levels - 1)) - 1

    def unscale(self, values: Tensor) -> Tensor:
        """[-1, 1] to the nearest level ``int64``; a clamp on data without levels."""
        if not self.ordered:
            raise TypeError("unordered data has no scale: embed it")
        values = values.clamp(-1, 1)
        return values if self.levels is None else ((values + 1) * ((self.levels - 1) / 2)).round().long()


def plain(data: DataSpec) -> dict[str, Any]:
    """A spec as JSON has it."""
    values = asdict(data)
    for condition in values["conditions"]:
        if not condition["text"]:
            del condition["text"]  # most are none: their file is the same as before there were any
    return values


@dataclass(frozen=True)
class CodeSpec:
    """The codes ``(batch, depth, *grid)``, those of depth d in ``0..codebook_sizes[d]-1``.

    Where there are ``parts``, the grid is flat: it lists the positions of one part after the other, each in raster
    order, and none of them belongs to a position of the data. ``((1, 1), (2, 2), (4, 4))`` are the parts of a grid of
    21 positions. ValueError where they do not add up to it.
    """

    grid: tuple[int, ...]
    codebook_sizes: tuple[int, ...]
    parts: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if not self.parts:
            return
        if not all(part and min(part) > 0 for part in self.parts):
            raise ValueError("a part of the codes' grid has no axes, or an axis below 1")
        positions = sum(map(prod, self.parts))
        if self.grid != (positions,):
            raise ValueError(f"the parts of the codes' grid have {positions} positions, and the grid is {self.grid}")

    @classmethod
    def on(cls, code_grid: CodeGrid, codebook_sizes: tuple[int, ...]) -> CodeSpec:
        """Codes on what ``Quantizer.code_grid`` gives."""
        if code_grid and all(isinstance(part, tuple) for part in code_grid):
            parts = cast(tuple[tuple[int, ...], ...], code_grid)
            return cls((sum(map(prod, parts)),), codebook_sizes, parts)
        return cls(cast(tuple[int, ...], code_grid), codebook_sizes)

    @property
    def depth(self) -> int:
        return len(self.codebook_sizes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example's codes: (depth, *grid)."""
        return (self.depth, *self.grid)

    @property
    def rate(self) -> float:
        """Bits per example at a uniform prior."""
        return prod(self.grid) * sum(log2(size) for size in self.codebook_sizes)

    def refuse_parts(self, option: str, cure: str) -> None:
        """ToolkitError where the grid has parts: ``option`` needs codes that lie along the data."""
        if self.parts:
            parts = ", ".join("x".join(map(str, part)) for part in self.parts)
            raise ToolkitError(
                f"{option}: these codes lie flat, in parts of {parts}, and none belongs to a place in the data: {cure}"
            )
