"""Plane waves: a labeled dataset over any axes that needs no download."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import pi
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from toolkit.dataset import SPLITS, Dataset, collate
from toolkit.plots.sheet import plot_sheet
from toolkit.ranges import PositiveInt
from toolkit.spec import Condition, DataSpec

PACES = {"slow": (1 / 32, 1 / 16), "medium": (1 / 12, 1 / 8), "fast": (1 / 6, 1 / 4)}
"""Cycles per position along a wave's direction: lowest and highest."""
COUNT = 3
"""Waves in one example, all of the same amplitude."""


@final
class WavesDataset(Dataset):
    """The mean of three plane waves of random directions, frequencies and phases; ``pace`` says how frequent.

    An example is a function of its split and index only, not of the sizes of the splits; longer axes show more of the
    same waves. Channels have the same waves with other phases. Files are NumPy's ``.npy``.

    Args:
        axes: positions along each axis; any number of axes.
        channels: number of channels.
        levels: number of levels that x is rounded to; null: x is real-valued.
        train_size: examples in the training split.
        val_size: examples in the validation split.
        test_size: examples in the test split.
    """

    suffix: ClassVar[str] = ".npy"

    def __init__(
        self,
        *,
        axes: tuple[PositiveInt, ...] = (16, 16),
        channels: PositiveInt = 1,
        levels: PositiveInt | None = 8,
        train_size: PositiveInt = 20_000,
        val_size: PositiveInt = 2_000,
        test_size: PositiveInt = 2_000,
    ) -> None:
        if not axes or min(axes) < 1:
            raise ValueError(f"axes={list(axes)}: waves need at least one axis, each of at least 1 position")
        if channels < 1:
            raise ValueError(f"channels={channels}: at least 1")
        if levels is not None and levels < 2:
            raise ValueError(f"levels={levels}: at least 2, or null for real values")
        self.sizes = dict(zip(SPLITS, (train_size, val_size, test_size), strict=True))
        for split, size in self.sizes.items():
            if size < 1:
                raise ValueError(f"{split}_size={size}: a split needs at least one example")
        pace = Condition("pace", len(PACES), tuple(PACES))
        self.spec = DataSpec(channels, axes, levels, variance=variance(levels), conditions=(pace,))

    def size(self, split: str) -> int:
        return self.sizes[split]

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        """``x`` (channels, *axes), int64 or float32, and the label ``pace``; the generator is not used."""
        if not 0 <= index < self.sizes[split]:
            raise IndexError(f"{split} has {self.sizes[split]} examples, no example {index}")
        random = np.random.default_rng((SPLITS.index(split), index))
        pace = int(random.integers(len(PACES)))
        values = torch.from_numpy(waves(random, list(PACES)[pace], self.spec.channels, self.spec.axes))
        return {"x": self.spec.unscale(values.float()), "pace": torch.tensor(pace)}

    def table(self, split: str) -> dict[str, Tensor]:
        return collate(self, split, range(self.sizes[split]), None)

    @classmethod
    def read(cls, path: Path, spec: DataSpec) -> Tensor:
        return read_array(path, spec)

    @classmethod
    def write(cls, x: Tensor, spec: DataSpec, path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, x.detach().cpu().numpy(), allow_pickle=False)

    @classmethod
    def plot(cls, rows: Sequence[Tensor], spec: DataSpec, path: Path) -> None:
        plot_sheet(path, [spec.scale(row.detach().cpu()).float().numpy() for row in rows])


def waves(random: np.random.Generator, pace: str, channels: int, axes: tuple[int, ...]) -> np.ndarray:
    """``(channels, *axes)`` float64 in [-1, 1]."""
    directions = random.standard_normal((COUNT, len(axes)))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    cycles = directions * random.uniform(*PACES[pace], (COUNT, 1))
    positions = np.indices(axes).reshape(len(axes), -1)
    phases = random.random((channels, COUNT, 1))
    values: np.ndarray = np.sin(2 * pi * (cycles @ positions + phases)).mean(1)
    return values.reshape(channels, *axes)


def variance(levels: int | None) -> float:
    """Variance of the scaled data: a half for a sine, divided by the number of waves; levels add their rounding."""
    if levels is None:
        return 0.5 / COUNT
    sine = np.sin(2 * pi * (np.arange(64) + 0.5) / 64)
    values = reduce(np.add.outer, [sine] * COUNT) / COUNT
    return float(np.square(((values + 1) * (levels - 1) / 2).round() * 2 / (levels - 1) - 1).mean())


def read_array(path: Path, spec: DataSpec) -> Tensor:
    """One example from a ``.npy`` file: integers where the spec has levels, else floats in [-1, 1].

    ValueError where the file is damaged, or has another shape, type or range. Nothing is unpickled, and a header that
    claims more than the file has allocates no memory.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # NumPy raises several types for damaged headers
        raise ValueError(f"cannot be read as a .npy file of numbers ({error})") from error
    if array.shape != spec.shape:
        raise ValueError(f"has an array {array.shape}, but {spec.shape} is needed (channels, then axes)")
    if spec.levels is None:
        if array.dtype.kind != "f":
            raise ValueError(f"has {array.dtype}, but this data is real-valued: float32 is needed")
        if not np.abs(array).max() <= 1:
            raise ValueError("has values outside of [-1, 1]")
        return torch.from_numpy(array.astype(np.float32))
    if array.dtype.kind not in "iu":
        raise ValueError(f"has {array.dtype}, but this data has levels: integers are needed")
    if array.min() < 0 or array.max() >= spec.levels:
        raise ValueError(f"has values from {array.min()} to {array.max()}, but levels are 0 to {spec.levels - 1}")
    return torch.from_numpy(array.astype(np.int64))
