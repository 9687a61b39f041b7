"""The interface of datasets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from toolkit.spec import DataSpec

SPLITS = ("train", "val", "test")


class Dataset(ABC):
    """Examples of one modality, by split, and the files they are read from and written to.

    Laws, checked by toolkit.testing.DatasetSuite:
      examples have the spec's shape, type and range
      an example is a function of (split, index, generator's seed); without a generator nothing is random
      read(write(x)) == x where the file format is lossless
    """

    suffix: ClassVar[str]
    """What ``write`` puts behind a file's name, such as ``.png``."""

    spec: DataSpec

    @abstractmethod
    def size(self, split: str) -> int:
        """How many examples a split has (``train``, ``val`` or ``test``)."""

    @abstractmethod
    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        """``{"x": (channels, *axes), condition: label, …}``; the generator drives random crops and the like."""

    @classmethod
    @abstractmethod
    def read(cls, path: Path, spec: DataSpec) -> Tensor:
        """One example ``(channels, *axes)`` from a file, made to fit the spec; ValueError where it cannot."""

    @classmethod
    @abstractmethod
    def write(cls, x: Tensor, spec: DataSpec, path: Path) -> None:
        """One example ``(channels, *axes)`` to a file."""

    @classmethod
    @abstractmethod
    def plot(cls, rows: Sequence[Tensor], spec: DataSpec, path: Path) -> None:
        """Many examples as one PNG for a person to look at; each row is a batch of the spec's data."""
