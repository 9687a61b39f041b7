"""Datasets whose files are those of another dataset, or NumPy's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from toolkit.dataset import Dataset
from toolkit.datasets.waves import read_array
from toolkit.plots.sheet import plot_sheet
from toolkit.spec import DataSpec

OF_FILES = (
    "suffix",
    "suffixes",
    "read",
    "read_bytes",
    "write",
    "pieces",
    "length",
    "write_pieces",
    "codecs",
    "raw_type",
    "from_raw",
    "to_raw",
    "plot",
)
"""What of a dataset's class is about its files."""


class ArrayDataset(Dataset):
    """Its files are ``.npy`` arrays ``(channels, *axes)``, or those of the dataset that its option ``files`` names."""

    suffix: ClassVar[str] = ".npy"
    suffixes: ClassVar[tuple[str, ...]] = (".npy",)
    files_option: ClassVar[str] = "files"

    def use_files(self, files: type[Dataset]) -> None:
        """From now on files are read and written as that class does."""
        for name in OF_FILES:
            setattr(self, name, getattr(files, name))

    @classmethod
    def read(cls, path: Path, spec: DataSpec) -> Tensor:
        return read_array(path, spec)

    @classmethod
    def write(cls, x: Tensor, spec: DataSpec, path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, x.detach().cpu().numpy(), allow_pickle=False)

    @classmethod
    def plot(cls, rows: Sequence[Tensor], spec: DataSpec, path: Path) -> None:
        """As ``plot_sheet`` shows numbers; symbols, such as codes, from the first to the last of them."""
        plot_sheet(path, [_shades(row.detach().cpu(), spec) for row in rows])


def _shades(x: Tensor, spec: DataSpec) -> np.ndarray:
    """Values in [-1, 1]."""
    values = x.float() if spec.levels is None else x.float() * (2 / max(1, spec.levels - 1)) - 1
    array: np.ndarray = values.to(torch.float32).numpy()
    return array
