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
    """Examples of one modality, by split, and their files.

    Laws, checked by toolkit.testing.DatasetSuite:
      examples have the spec's shape, type and range
      an example is a function of (split, index, seed of the generator); without a generator nothing is random
      read(write(x)) == x where the file format is lossless
    """

    suffix: ClassVar[str]
    """File extension, such as ``.png``."""

    spec: DataSpec

    @abstractmethod
    def size(self, split: str) -> int:
        """Number of examples of a split (``train``, ``val`` or ``test``)."""

    @abstractmethod
    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        """``{"x": (channels, *axes), condition: label, …}``; random crops and the like use the generator."""

    @classmethod
    @abstractmethod
    def read(cls, path: Path, spec: DataSpec) -> Tensor:
        """One example ``(channels, *axes)`` from a file, converted to the spec; ValueError where that is impossible."""

    @classmethod
    @abstractmethod
    def write(cls, x: Tensor, spec: DataSpec, path: Path) -> None:
        """Writes one example ``(channels, *axes)`` to a file."""

    @classmethod
    @abstractmethod
    def plot(cls, rows: Sequence[Tensor], spec: DataSpec, path: Path) -> None:
        """Writes many examples as one PNG to look at; each row is a batch ``(n, channels, *axes)``."""
