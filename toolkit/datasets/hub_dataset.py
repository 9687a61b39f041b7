"""Tables of the datasets library, on this machine or from the Hugging Face Hub."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor

from toolkit.dataset import Dataset, SourceFile
from toolkit.datasets.arrays import ArrayDataset
from toolkit.datasets.files import find_files, log_once
from toolkit.datasets.foreign import Axes, Channels, Crop, Files, Fitting, Levels, Rate, spec_of
from toolkit.datasets.hub_tables import Label, Text, by_split, library, open_tables
from toolkit.datasets.variance import estimate_variance
from toolkit.errors import ToolkitError
from toolkit.lengths.mask import together
from toolkit.ranges import Range

_logger = logging.getLogger(__name__)

SAMPLE = 64
"""Examples that the variance is estimated from, at most."""


@final
class HubDataset(ArrayDataset):
    """A table of the Hugging Face ``datasets`` library: Arrow or Parquet, here or on the Hub.

    Needs ``pip install 'discrete-toolkit[datasets]'``. A column holds the data: files that the dataset ``files`` reads,
    such as pictures, sounds or films, or arrays of numbers. Splits are the table's, by any usual name; a missing val or
    test is 5 % of train, by a hash of a row's number. A table of the Hub is downloaded to the library's cache; give its
    ``revision``, or what is trained on may change.

    Args:
        root: a folder that ``save_to_disk`` wrote, or one with Parquet files, or one Parquet or Arrow file.
        repo: in place of root, a dataset of the Hub, as OWNER/NAME.
        subset: of a dataset with several; null: the only one.
        revision: a commit, tag or branch of the Hub's dataset.
        column: which column is the data.
        conditions: columns that are labels (classes, names or whole numbers), or vectors of numbers.
        texts: columns that are texts, such as captions, which a prior with a conditioner reads.
        text_bytes: of a text; longer ones are cut.
    """

    path_options: ClassVar[tuple[str, ...]] = ("root",)

    def __init__(
        self,
        dataset_class: Callable[[str], type[Dataset]],
        *,
        root: str | None = None,
        repo: str | None = None,
        subset: str | None = None,
        revision: str | None = None,
        column: str = "image",
        conditions: tuple[str, ...] = (),
        texts: tuple[str, ...] = (),
        text_bytes: Annotated[int, Range(least=1, most=65536)] = 128,
        files: Files = None,
        channels: Channels = 3,
        axes: Axes = (64, 64),
        levels: Levels = 256,
        rate: Rate = None,
        crop: Crop = "random",
    ) -> None:
        if (root is None) == (repo is None):
            raise ValueError("give root=FOLDER, or repo=OWNER/NAME of the Hub, and not both")
        datasets, self.root, self.where = library(), root, str(root if root is not None else repo)
        tables = open_tables(root, repo, subset, revision)
        columns = (column, *conditions, *texts)
        tables = {name: _columns(table, columns, name) for name, table in tables.items()}
        splits = by_split(tables, self.where)
        of_files = dataset_class(files) if files else None
        if of_files is not None:
            self.use_files(of_files)
        labels = [Label(datasets, splits["train"][0], name) for name in conditions]
        self.labels: tuple[Label | Text, ...] = (*labels, *(Text(name, text_bytes) for name in texts))
        self.column = column
        self.splits = {split: (_undecoded(datasets, table, column), rows) for split, (table, rows) in splits.items()}
        self.spec = spec_of(of_files, channels, axes, levels, rate, tuple(label.condition for label in self.labels))
        self.fitting = Fitting(of_files, self.spec, crop)
        log_once(_logger, f"{self.where}: " + ", ".join(f"{self.size(split)} {split}" for split in self.splits))
        self.spec = replace(self.spec, variance=estimate_variance(self, SAMPLE) if self.size("train") else None)

    def size(self, split: str) -> int:
        table, rows = self.splits[split]
        return len(table) if rows is None else len(rows)

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        """``x`` (channels, *axes) and the conditions."""
        return self._read(split, [index], [generator])[0]

    def batch(
        self, split: str, indices: Sequence[int], generators: Sequence[torch.Generator] | None
    ) -> dict[str, Tensor]:
        """The examples of these indices, stacked: the table is asked once for all their rows."""
        return together(self._read(split, indices, [None] * len(indices) if generators is None else generators))

    def _read(
        self, split: str, indices: Sequence[int], generators: Sequence[torch.Generator | None]
    ) -> list[dict[str, Tensor]]:
        for index in indices:
            if not 0 <= index < self.size(split):
                raise IndexError(f"{split} has {self.size(split)} examples, no example {index}")
        table, rows = self.splits[split]
        numbers = list(indices) if rows is None else [rows[index] for index in indices]
        columns = table[numbers]
        labels = [(label, columns[label.condition.name]) for label in self.labels]
        examples = []
        for i, (number, generator) in enumerate(zip(numbers, generators, strict=True)):
            try:
                x = self._data(columns[self.column][i], generator)
                known = {label.condition.name: label.value(cells[i]) for label, cells in labels}
            except (ValueError, OSError, ToolkitError) as e:
                raise ToolkitError(f"dataset={self.where}, row {number} of {split}, column {self.column}: {e}") from e
            examples.append({"x": x, **known})
        return examples

    def source_files(self) -> Iterable[SourceFile]:
        """The files of a folder, or the file."""
        if self.root is None:
            return
        root = Path(self.root).expanduser()
        names = [""] if root.is_file() else find_files(root, (".arrow", ".parquet"))
        for name in names:
            yield SourceFile(name or root.name, str(root / name if name else root))

    def _data(self, cell: Any, generator: torch.Generator | None) -> Tensor:
        if isinstance(cell, dict):  # a picture, a sound or a film, not decoded
            cell, name = cell.get("bytes"), cell.get("path") or ""
            if cell is None and name:
                return self.fitting.of_file(Path(name), generator)
        else:
            name = ""
        if cell is None:
            raise ValueError("it is empty")
        if isinstance(cell, bytes):
            return self.fitting.of_bytes(cell, name, generator)
        if self.fitting.files is not None:
            raise ValueError("it holds numbers, no files: leave files out")
        values = np.asarray(cell)
        return self.fitting.of_array(values.astype(np.float32) if values.dtype == np.float64 else values, generator)


def _columns(table: Any, columns: tuple[str, ...], split: str) -> Any:
    """The table with these columns alone; ValueError where one is missing."""
    for column in columns:
        if column not in table.column_names:
            have = ", ".join(table.column_names)
            raise ValueError(f"column={column}: {split} has no such column (it has: {have})")
    return table.select_columns(list(columns))


def _undecoded(datasets: Any, table: Any, column: str) -> Any:
    """The table whose files are bytes: they are decoded as those of our own datasets are."""
    feature = table.features[column]
    kinds = tuple(getattr(datasets, name) for name in ("Image", "Audio", "Video") if hasattr(datasets, name))
    return table.cast_column(column, type(feature)(decode=False)) if isinstance(feature, kinds) else table
