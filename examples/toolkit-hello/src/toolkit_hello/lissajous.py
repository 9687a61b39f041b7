"""Closed curves in the plane: a labeled dataset that needs no download."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from toolkit import Condition, Dataset, DataSpec
from toolkit.dataset import SPLITS
from toolkit.ranges import PositiveInt

RATIOS = {"1:1": (1, 1), "1:2": (1, 2), "2:3": (2, 3), "3:4": (3, 4)}
"""Periods across and down of one closed curve."""
LEVELS = 64
VARIANCE = 49 / 150
"""Of the scaled data: half the mean square of a size that is uniform in [0.6, 1]."""


@final
class LissajousDataset(Dataset):
    """Lissajous curves of random size and phases in the plane; ``ratio`` is that of their frequencies.

    ``x = a sin(m t + p)`` and ``y = a sin(n t + q)``, two channels of 64 levels over one axis, with the label m:n. An
    example is a function of its split and index. Files are CSV: a row ``x,y`` of levels for each point.

    Args:
        length: points of a curve.
        train_size: examples of the training split.
        val_size: examples of the validation split.
        test_size: examples of the test split.
    """

    suffix: ClassVar[str] = ".csv"

    def __init__(
        self,
        *,
        length: PositiveInt = 64,
        train_size: PositiveInt = 10_000,
        val_size: PositiveInt = 1_000,
        test_size: PositiveInt = 1_000,
    ) -> None:
        if length < 8:
            raise ValueError(f"length={length}: a curve needs at least 8 points")
        self.sizes = dict(zip(SPLITS, (train_size, val_size, test_size), strict=True))
        for split, size in self.sizes.items():
            if size < 1:
                raise ValueError(f"{split}_size={size}: a split needs at least one example")
        ratio = Condition("ratio", len(RATIOS), tuple(RATIOS))
        self.spec = DataSpec(2, (length,), LEVELS, variance=VARIANCE, conditions=(ratio,))

    def size(self, split: str) -> int:
        return self.sizes[split]

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        """``x`` (2, length) int64 and the label ``ratio``; the generator is not used."""
        if not 0 <= index < self.sizes[split]:
            raise IndexError(f"{split} has {self.sizes[split]} examples, no index {index}")
        random = np.random.default_rng((SPLITS.index(split), index))
        ratio = int(random.integers(len(RATIOS)))
        turns = np.array(list(RATIOS.values())[ratio])[:, None]
        times = np.arange(self.spec.axes[0]) / self.spec.axes[0]
        curve = random.uniform(0.6, 1) * np.sin(2 * pi * (turns * times + random.random((2, 1))))
        return {"x": self.spec.unscale(torch.from_numpy(curve)), "ratio": torch.tensor(ratio)}

    @classmethod
    def read(cls, path: Path, spec: DataSpec) -> Tensor:
        try:
            rows = [[int(level) for level in line.split(",")] for line in path.read_text("utf-8").splitlines()]
        except ValueError as error:
            raise ValueError(f"not a CSV file of whole numbers ({error})") from error
        if [len(row) for row in rows] != [spec.channels] * spec.axes[0]:
            raise ValueError(f"has {len(rows)} rows; {spec.axes[0]}, of {spec.channels} numbers each, are needed")
        if not all(0 <= level < LEVELS for row in rows for level in row):
            raise ValueError(f"has numbers outside 0 to {LEVELS - 1}")
        return torch.tensor(rows).T.contiguous()

    @classmethod
    def write(cls, x: Tensor, spec: DataSpec, path: Path) -> None:
        path.write_text("".join(f"{across},{down}\n" for across, down in x.T.tolist()), "utf-8")

    @classmethod
    def plot(cls, rows: Sequence[Tensor], spec: DataSpec, path: Path) -> None:
        from matplotlib.figure import Figure

        columns = max(len(row) for row in rows)
        figure = Figure(figsize=(columns, len(rows)), dpi=100)
        axes = figure.add_axes((0, 0, 1, 1))
        for i, row in enumerate(rows):
            for j, (across, down) in enumerate(0.45 * spec.scale(row.cpu()).numpy()):
                axes.plot(j + across, down - i, color="#0072b2", linewidth=1)
        axes.set_xlim(-0.5, columns - 0.5)
        axes.set_ylim(0.5 - len(rows), 0.5)
        axes.set_axis_off()
        figure.savefig(path)
