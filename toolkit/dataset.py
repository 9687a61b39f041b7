"""The interface of datasets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from toolkit.errors import ToolkitError
from toolkit.file_codec import FileCodec
from toolkit.lengths.mask import together
from toolkit.proposal import Proposal
from toolkit.spec import DataSpec

SPLITS = ("train", "val", "test")


class Examples(Protocol):
    """What can be batched: a dataset, or the codes of one. It may have a ``Dataset.batch``, too."""

    def size(self, split: str) -> int: ...

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]: ...


@runtime_checkable
class Tabled(Examples, Protocol):
    """Examples of which a split may be kept on the device as a whole: see ``Dataset.table``."""

    def table(self, split: str) -> dict[str, Tensor] | None: ...

    def draws(self, split: str, indices: Sequence[int], generators: Sequence[torch.Generator]) -> dict[str, Tensor]: ...

    def from_table(self, rows: dict[str, Tensor], draws: dict[str, Tensor]) -> dict[str, Tensor]: ...


def collate(
    examples: Examples, split: str, indices: Sequence[int], generators: Sequence[torch.Generator] | None
) -> dict[str, Tensor]:
    """``Dataset.batch``, one example after the other."""
    own: Sequence[torch.Generator | None] = [None] * len(indices) if generators is None else generators
    rows = [examples.example(split, index, generator) for index, generator in zip(indices, own, strict=True)]
    return together(rows)


def gather(
    examples: Tabled,
    table: Mapping[str, Tensor],
    split: str,
    indices: Sequence[int],
    generators: Sequence[torch.Generator] | None,
) -> dict[str, Tensor]:
    """``Dataset.batch``, from the split's table."""
    places = torch.tensor(indices, dtype=torch.int64)
    draws = {} if generators is None else examples.draws(split, indices, generators)
    return examples.from_table({name: column[places] for name, column in table.items()}, draws)


def check_first(dataset: Dataset) -> None:
    """Reads the first training example. ToolkitError where a condition has other steps than its data; see
    ``Condition.check_steps``."""
    example = dataset.example("train", 0, None)
    for condition in dataset.spec.conditions:
        if condition.name in example:
            condition.check_steps(example[condition.name].unsqueeze(0), example["x"].shape[1])


class SourceFile(NamedTuple):
    """A file that examples come from."""

    name: str
    """By what it is known wherever the dataset lies: its path below the dataset's folder."""
    path: str
    """Where it is."""
    split: str = ""
    """The split that it counts in; empty: all, or none."""
    label: str = ""
    """The label that it counts as, such as its class; empty: none."""


class Dataset(ABC):
    """Examples of one modality, by split, and their files.

    Laws, checked by toolkit.testing.DatasetSuite:
      examples have the spec's shape, type and range
      an example is a function of (split, index, seed of the generator); without a generator nothing is random
      a batch is its examples, bit for bit, and so is one from the table, if there is one
      read(write(x)) == x where the file format is lossless
      a file's content is read from memory as the file is
      pieces joined are what read gives, and pieces written what write writes
      codecs give data of the spec, and without loss all levels
    """

    suffix: ClassVar[str]
    """File extension, such as ``.png``."""

    suffixes: ClassVar[tuple[str, ...]] = ()
    """Extensions, in lower case, of the files in a folder that ``read`` is for; none: of all files."""

    path_options: ClassVar[tuple[str, ...]] = ("root",)
    """Options that are paths of files or folders, if it has them: a run keeps them absolute."""

    files_option: ClassVar[str] = ""
    """The option, if it has one, that may name the dataset whose files its own are."""

    one_length: bool = False
    """Whether examples of unequal ``lengths`` are batched with those of their own length alone, and never padded."""

    spec: DataSpec

    @abstractmethod
    def size(self, split: str) -> int:
        """Number of examples of a split (``train``, ``val`` or ``test``)."""

    @abstractmethod
    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        """``{"x": (channels, *axes), condition: label, …}``; random crops and the like use the generator."""

    def lengths(self, split: str) -> Sequence[int] | None:
        """Of each example, the positions along its first axis, at most ``spec``'s; nothing is read for it. None: all
        have the spec's axes.

        Batches then have examples of about one length, padded to the longest; see ``toolkit.lengths.mask``.
        """
        return None

    def batch(
        self, split: str, indices: Sequence[int], generators: Sequence[torch.Generator] | None
    ) -> dict[str, Tensor]:
        """The examples of these indices, stacked: ``{"x": (batch, channels, *axes), condition: (batch, …), …}``.

        Examples of unequal ``lengths`` are padded with zeros, and there is a ``mask`` ``(batch, positions)``, too.

        ``generators`` are the examples' own, in the same order. A dataset that reads a batch faster than one example
        after the other overrides it, with the same result, bit for bit; a generator that it does not ask for costs
        nothing.
        """
        return collate(self, split, indices, generators)

    def table(self, split: str) -> dict[str, Tensor] | None:
        """All of a split, for a device to keep: tensors by name, with a row for each example. None: it has no table.

        A dataset that holds its examples in memory, or computes them, has one: batches are then gathered on the GPU and
        none is loaded. The columns may be in any form that is small; ``from_table`` makes a batch of them.
        """
        return None

    def draws(self, split: str, indices: Sequence[int], generators: Sequence[torch.Generator]) -> dict[str, Tensor]:
        """What is random in the examples of these indices, by name, ``(batch, …)``: such as which are mirrored.

        It is drawn on the CPU, from the examples' own generators, as ``batch`` does; nothing where nothing is random.
        """
        return {}

    def from_table(self, rows: dict[str, Tensor], draws: dict[str, Tensor]) -> dict[str, Tensor]:
        """A batch from some rows of the table and their draws, which are empty where nothing is random.

        The result is that of ``batch``, bit for bit. All of it lies on one device, of which nothing is asked:
        ``torch.where`` in place of masks.
        """
        return rows

    def example_name(self, split: str, index: int) -> str:
        """What is kept beside an example's codes: the file that it comes from, below the dataset's folder, or a number.

        Examples that are parts of one file differ in what follows its stem.
        """
        return f"{split}/{index:06d}"

    def source_files(self) -> Iterable[SourceFile]:
        """All files that its examples and their labels come from; none where they are computed from its options.

        A run records them, by name, size and time, and is not continued on others without being told to. Nothing is
        read for it.
        """
        return ()

    def found_options(self) -> Mapping[str, Any]:
        """Options that only its data says: a run keeps them, and is used where the data is absent."""
        return {}

    @classmethod
    @abstractmethod
    def read(cls, path: Path, spec: DataSpec) -> Tensor:
        """One example ``(channels, *axes)`` from a file, converted to the spec; ValueError where that is impossible."""

    @classmethod
    def read_bytes(cls, content: bytes, name: str, spec: DataSpec) -> Tensor:
        """What ``read`` gives of a file with this content; the name's suffix may say which kind of file it is.

        A dataset that reads from memory overrides it. Errors as of ``read``.
        """
        with NamedTemporaryFile(suffix=PurePosixPath(name).suffix) as file:
            file.write(content)
            file.flush()
            try:
                return cls.read(Path(file.name), spec)
            except ToolkitError as error:
                raise ToolkitError(str(error).replace(file.name, name)) from error

    @classmethod
    @abstractmethod
    def write(cls, x: Tensor, spec: DataSpec, path: Path) -> None:
        """Writes one example ``(channels, *axes)`` to a file."""

    @classmethod
    def pieces(cls, path: Path, spec: DataSpec) -> Iterator[Tensor]:
        """What ``read`` gives, as pieces ``(channels, positions, …)`` along the first axis, in order.

        A dataset of files that may be longer than memory holds reads them as they are asked for. Errors as of ``read``,
        at once or with a piece.
        """
        yield cls.read(path, spec)

    @classmethod
    def length(cls, path: Path, spec: DataSpec) -> int:
        """Positions along the first axis of what ``read`` gives."""
        return cls.read(path, spec).shape[1]

    @classmethod
    def write_pieces(cls, pieces: Iterable[Tensor], spec: DataSpec, path: Path) -> None:
        """What ``write`` writes, for an example in pieces, of which there is at least one, each as soon as it comes."""
        cls.write(torch.cat(list(pieces), 1), spec, path)

    @classmethod
    def codecs(cls, spec: DataSpec) -> Mapping[str, FileCodec]:
        """By name, what people keep such data in otherwise, for ``toolkit compare``; none by default."""
        return {}

    @classmethod
    def propose(cls, root: Path) -> Proposal | None:
        """An experiment for a folder, for ``toolkit start``; None where nothing in it is for this dataset, as by
        default.

        It may read headers and some of the files, and is asked before anybody has chosen an option. ToolkitError where
        the folder has its files in an order in which they cannot be read: what to do about it.
        """
        return None

    @classmethod
    def raw_type(cls, spec: DataSpec) -> str:
        """NumPy's name of a number's type in a pipe, little-endian, such as ``<i2`` for 16-bit samples.

        By default the smallest unsigned type that holds the levels, and 32-bit floats where there are none. Positions
        along the first axis follow each other, each with its numbers ``(channels, …)``.
        """
        if spec.levels is None:
            return "<f4"
        return "u1" if spec.levels <= 1 << 8 else "<u2" if spec.levels <= 1 << 16 else "<u4"

    @classmethod
    def from_raw(cls, numbers: np.ndarray, spec: DataSpec) -> Tensor:
        """Numbers of ``raw_type`` as data in its own form, of the same shape; any of them is some data."""
        if spec.levels is None:
            return torch.from_numpy(numbers.astype(np.float32)).nan_to_num().clamp(-1, 1)
        return torch.from_numpy(numbers.astype(np.int64)).clamp(max=spec.levels - 1)

    @classmethod
    def to_raw(cls, x: Tensor, spec: DataSpec) -> np.ndarray:
        """The inverse of ``from_raw``, of data on the CPU; rounded where the type has fewer numbers."""
        return x.numpy().astype(cls.raw_type(spec))

    @classmethod
    @abstractmethod
    def plot(cls, rows: Sequence[Tensor], spec: DataSpec, path: Path) -> None:
        """Writes many examples as one PNG to look at; each row is a batch ``(n, channels, *axes)``."""
