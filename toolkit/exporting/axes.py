"""Which axes of a graph are free, and how the lengths of data, codes and conditions hang together."""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm
from typing import Any

from torch.export import Dim

from toolkit.spec import CodeSpec, Condition, DataSpec


@dataclass(frozen=True)
class FreeAxes:
    """Each free axis is a whole number n of units, which is the same for data, codes and conditions."""

    grid: tuple[int, ...]
    """Of the codes of an example."""
    units: tuple[int, ...]
    """Positions of the data in a unit, by axis; 0 where the axis is fixed."""
    lengths: tuple[int, ...]
    """Of the data in an example."""
    fixed: str
    """Why an axis that varies in the data is fixed."""

    @classmethod
    def of(cls, data: DataSpec, codes: CodeSpec, seen: tuple[str, ...], free: bool) -> FreeAxes:
        """``seen``: the conditions that the decoder sees. ``free``: False fixes all axes."""
        varying = data.varying or (False,) * data.rank
        steps = [c.stride for c in data.conditions if c.per_step and c.name in seen]
        units, why = [0] * data.rank, ""
        for axis, (varies, length) in enumerate(zip(varying, data.axes, strict=True)):
            if not varies or not free:
                continue
            if codes.parts:
                why = "the codes' grid has parts, which belong to data of one size"
            elif length % codes.grid[axis]:
                why = f"{length} positions have {codes.grid[axis]} codes, not a whole number for each"
            else:
                unit = lcm(length // codes.grid[axis], *(steps if axis == 0 else ()))
                if length < 2 * unit:
                    why = f"an example has one unit of {unit} positions, which a graph takes for a constant"
                else:
                    units[axis] = unit
        lengths = [length - length % unit if unit else length for length, unit in zip(data.axes, units, strict=True)]
        grid = codes.grid if codes.parts else _grid(data, codes, lengths)
        return cls(grid, tuple(units), tuple(lengths), why)

    def longer(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Lengths of data with a unit more along each free axis, and the grid that its codes have to have."""
        units = zip(self.lengths, self.grid, self.units, strict=True)
        pairs = [(length + unit, size + size * unit // length) for length, size, unit in units]
        return tuple(length for length, _ in pairs), tuple(size for _, size in pairs)

    def data(self) -> dict[int, Any]:
        """The free axes of ``(batch, channels, *axes)``."""
        return self._free({axis: unit for axis, unit in enumerate(self.units) if unit})

    def codes(self) -> dict[int, Any]:
        """Those of codes or latents ``(batch, channels, *grid)``."""
        free = [axis for axis, unit in enumerate(self.units) if unit]
        return self._free({axis: self.units[axis] * self.grid[axis] // self.lengths[axis] for axis in free})

    def condition(self, condition: Condition) -> dict[int, Any]:
        """Those of a condition ``(batch, …)`` or ``(batch, steps, …)``."""
        if not condition.per_step or not self.units[0]:
            return {0: Dim("batch")}
        return {0: Dim("batch"), 1: _times(condition.steps(self.units[0]), 0)}

    def _free(self, per_unit: dict[int, int]) -> dict[int, Any]:
        return {0: Dim("batch"), **{2 + axis: _times(factor, axis) for axis, factor in per_unit.items()}}


def _grid(data: DataSpec, codes: CodeSpec, lengths: list[int]) -> tuple[int, ...]:
    """The codes' grid where the data has these lengths."""
    return tuple(size * length // whole for size, length, whole in zip(codes.grid, lengths, data.axes, strict=True))


def _times(factor: int, axis: int) -> Any:
    n = Dim(f"n{axis}", min=2)
    return n if factor == 1 else factor * n


def spelled(shape: tuple[int, ...], free: dict[int, Any]) -> list[int | str]:
    """A shape with its free axes in words, such as ``["batch", 3, "4*n0", "4*n1"]``."""
    return [free[axis].__name__ if axis in free else size for axis, size in enumerate(shape)]
