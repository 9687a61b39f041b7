"""CIFAR-10, read from its original files."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, final

import torch
from torch import Tensor

from toolkit import Condition, DataSpec, ToolkitError
from toolkit.dataset import SourceFile, gather
from toolkit_image.cifar10_batch import LARGEST, ORIGIN, Batch, read_batch
from toolkit_image.files import ImageDataset

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST = "test_batch"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
VARIANCE = 4 * 0.063286924
"""Of the training pixels, scaled to [-1, 1]."""


class Part(NamedTuple):
    """Where a split is: its files, and which of their images."""

    files: tuple[str, ...]
    start: int
    stop: int


SPLITS = {
    "train": Part(TRAIN, 0, 45_000),
    "val": Part(TRAIN[-1:], 5_000, 10_000),
    "test": Part((TEST,), 0, 10_000),
}


@final
class CIFAR10Dataset(ImageDataset):
    """60 000 color images of 32 x 32 pixels in ten classes (Krizhevsky 2009).

    A split is read whole when an example of it is first asked for, and kept as bytes. The validation split is the last
    5 000 training images.

    Args:
        root: the folder ``cifar-10-batches-py`` or the archive ``cifar-10-python.tar.gz``, or the folder of either.
        flip: mirrors an image, left to right, half the time, if a generator is given.
    """

    def __init__(self, *, root: str = "data", flip: bool = False) -> None:
        if not root.strip():  # the current folder is what an unset variable of a shell would give
            raise ToolkitError("dataset.root is empty; dataset.root=FOLDER says where CIFAR-10 is")
        self.root = Path(root).expanduser()
        self.flip = flip
        self.splits: dict[str, tuple[Tensor, Tensor]] = {}
        self.spec = DataSpec(
            3,
            (32, 32),
            levels=256,
            variance=VARIANCE,
            conditions=(Condition("class", len(CLASSES), CLASSES),),
        )

    def size(self, split: str) -> int:
        return SPLITS[split].stop - SPLITS[split].start

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        """``x`` (3, 32, 32) uint8 and the label ``class``."""
        images, labels = self._read(split)
        x = images[index]
        if generator is not None and self._flips(generator):
            x = x.flip(-1)
        return {"x": x, "class": labels[index]}

    def batch(
        self, split: str, indices: Sequence[int], generators: Sequence[torch.Generator] | None
    ) -> dict[str, Tensor]:
        return gather(self, self.table(split), split, indices, generators)

    def table(self, split: str) -> dict[str, Tensor]:
        """``x`` uint8 and ``class``, as they are kept."""
        images, labels = self._read(split)
        return {"x": images, "class": labels}

    def draws(self, split: str, indices: Sequence[int], generators: Sequence[torch.Generator]) -> dict[str, Tensor]:
        """Which are mirrored."""
        return {"flips": torch.tensor([self._flips(each) for each in generators])} if self.flip else {}

    def from_table(self, rows: dict[str, Tensor], draws: dict[str, Tensor]) -> dict[str, Tensor]:
        if not draws:
            return rows
        x = rows["x"]
        return {**rows, "x": torch.where(draws["flips"].view(-1, 1, 1, 1), x.flip(-1), x)}

    def source_files(self) -> Iterable[SourceFile]:
        path = _find(self.root)
        if path.is_file():
            return [SourceFile(path.name, str(path))]
        return [SourceFile(name, str(path / name)) for name in (*TRAIN, TEST)]

    def _read(self, split: str) -> tuple[Tensor, Tensor]:
        """Images and labels of a split."""
        if split not in self.splits:
            self.splits[split] = read_split(self.root, SPLITS[split])
        return self.splits[split]

    def _flips(self, generator: torch.Generator) -> bool:
        return self.flip and bool(torch.rand((), generator=generator) < 0.5)


def read_split(root: Path, part: Part) -> tuple[Tensor, Tensor]:
    """Images ``(n, 3, 32, 32)`` uint8 and labels ``(n,)`` int64 of a part of the data set at ``root``."""
    path = _find(root)
    batches = (_read_archive if path.is_file() else _read_folder)(path, part.files)
    missing = [name for name in part.files if name not in batches]
    if missing:
        raise ToolkitError(f"{path}: no {', '.join(missing)}; {ORIGIN}")
    images = torch.cat([batches[name].images for name in part.files])
    labels = torch.cat([batches[name].labels for name in part.files])
    # clones, so that the other images of the files are not kept in memory
    return images[part.start : part.stop].clone(), labels[part.start : part.stop].clone()


def _find(root: Path) -> Path:
    """The folder of batches or the archive that ``root`` is or holds."""
    if (root / FOLDER).is_dir():
        return root / FOLDER
    if (root / ARCHIVE).is_file():
        return root / ARCHIVE
    if root.is_file() or any((root / name).exists() for name in (*TRAIN, TEST)):
        return root
    raise ToolkitError(
        f"CIFAR-10 is not at {root.absolute()}: neither {FOLDER} nor {ARCHIVE} is there.\n"
        f"Set dataset.root=FOLDER; {ORIGIN}"
    )


def _read_folder(folder: Path, names: Container[str]) -> dict[str, Batch]:
    return {path.name: _read_file(path) for path in sorted(folder.iterdir()) if path.name in names}


def _read_file(path: Path) -> Batch:
    try:
        if not path.is_file():  # a pipe would be waited for
            raise ToolkitError(f"{path}: cannot be opened (it is no file); {ORIGIN}")
        with path.open("rb") as stream:
            return read_batch(stream, str(path))
    except OSError as error:
        raise ToolkitError(f"{path}: cannot be opened ({error.strerror})") from error


def _read_archive(archive: Path, names: Container[str]) -> dict[str, Batch]:
    """In one pass over the archive, in its own order, because seeking back means decompressing it again."""
    batches = {}
    try:
        with tarfile.open(archive, "r:gz") as members:
            for member in members:
                name = member.name.rpartition("/")[2]
                if member.size > LARGEST or (name in names and not member.isreg()):
                    what = f"{member.size:,} bytes" if member.isreg() else "no file but a link or the like"
                    raise ToolkitError(f"{archive}: {member.name} is {what}; {ORIGIN}")
                if name in names and (stream := members.extractfile(member)):
                    batches[name] = read_batch(stream, f"{archive}: {member.name}")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ToolkitError(f"{archive}: the archive is damaged ({error}); {ORIGIN}") from error
    return batches
