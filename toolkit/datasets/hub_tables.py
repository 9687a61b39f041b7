"""Tables that the datasets library opens: their splits, and which columns are labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolkit.dataset import SPLITS
from toolkit.datasets.files import log_once, set_aside, split_named
from toolkit.errors import ToolkitError
from toolkit.spec import Condition

_logger = logging.getLogger(__name__)

WRITTEN = ("dataset_dict.json", "state.json")
"""What ``save_to_disk`` leaves in a folder."""


def library() -> Any:
    """The datasets library. ToolkitError where it is not installed."""
    try:
        found = import_module("datasets")
    except ImportError as e:
        raise ToolkitError(
            f"dataset=hub_dataset needs the datasets library: pip install 'discrete-toolkit[datasets]' ({e})"
        ) from e
    found.disable_progress_bars()
    return found


def open_tables(root: str | None, repo: str | None, subset: str | None, revision: str | None) -> dict[str, Any]:
    """Tables by split: of a folder, of a Parquet or Arrow file, or of a repository of the Hub.

    ToolkitError where there is none.
    """
    datasets, where = library(), root if root is not None else repo
    try:
        found = _load(datasets, Path(root).expanduser() if root is not None else None, repo, subset, revision)
    except Exception as e:  # the library has many errors, some of them only a class's name
        reason = next(iter(str(e).splitlines()), "") or type(e).__name__
        raise ToolkitError(f"dataset={where} cannot be opened by the datasets library: {reason}") from e
    return dict(found) if isinstance(found, Mapping) else {"train": found}


def _load(datasets: Any, path: Path | None, repo: str | None, subset: str | None, revision: str | None) -> Any:
    if path is None:
        return datasets.load_dataset(repo, subset, revision=revision)
    if path.suffix == ".arrow":
        return datasets.Dataset.from_file(str(path))
    if path.is_file():
        return datasets.load_dataset("parquet", data_files={"train": str(path)})
    if any((path / name).is_file() for name in WRITTEN):
        return datasets.load_from_disk(str(path))
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such file or folder")
    return datasets.load_dataset(str(path), subset)


def by_split(tables: Mapping[str, Any], where: str) -> dict[str, tuple[Any, list[int] | None]]:
    """A table for each of our splits, and its rows (None: all).

    A missing val or test is 5 % of the rows of train, by a hash of their numbers. ToolkitError where two tables say one
    split, or none is for training.
    """
    named: dict[str, str] = {}
    for name in tables:
        split = split_named(name)
        if split in named:
            raise ToolkitError(f"dataset={where}: {named[split]} and {name} both name the split {split}")
        if split:
            named[split] = name
    if "train" not in named:
        raise ToolkitError(f"dataset={where} has no split train (it has: {', '.join(tables)})")
    missing = [split for split in SPLITS if split not in named]
    rows: dict[str, list[int] | None] = dict.fromkeys(SPLITS)
    if missing:
        held = set_aside(range(len(tables[named["train"]])), lambda _: None, str)
        rows["train"] = sorted(held["train"] + [n for split in SPLITS[1:] if split not in missing for n in held[split]])
        rows |= {split: held[split] for split in missing}
    return {split: (tables[named.get(split, named["train"])], rows[split]) for split in SPLITS}


class Label:
    """A column as a condition."""

    def __init__(self, datasets: Any, table: Any, column: str) -> None:
        feature = table.features[column]
        self.numbers: dict[str, int] = {}
        if isinstance(feature, datasets.ClassLabel):
            self.condition = Condition(column, feature.num_classes, tuple(map(str, feature.names)))
        elif getattr(feature, "dtype", None) in ("string", "large_string"):
            names = sorted({str(value) for value in table.unique(column) if value is not None})
            self.numbers = {name: number for number, name in enumerate(names)}
            self.condition = Condition(column, len(names), tuple(names))
        elif str(getattr(feature, "dtype", "")).startswith(("int", "uint", "bool")):
            values = [int(value) for value in table.unique(column) if value is not None]
            if min(values, default=0) < 0:
                raise ValueError(f"conditions=[{column}]: it has {min(values)}, and labels are counted from 0")
            self.condition = Condition(column, max(values, default=0) + 1)
        else:
            length = len(np.asarray(table[0][column]).reshape(-1))
            self.condition = Condition(column, length, real=True)

    def value(self, cell: Any) -> Tensor:
        """A cell's label, or its values; a label that training has not, or none, is "none". ValueError for others."""
        condition = self.condition
        if condition.real:
            values = torch.tensor(np.asarray(cell, np.float32)).reshape(-1)
            if len(values) != condition.size:
                raise ValueError(f"{condition.name} has {len(values)} values: {condition.size} are needed")
            return values
        number = self.numbers.get(str(cell), condition.size) if self.numbers else cell
        known = number is not None and 0 <= int(number) < condition.size
        return torch.tensor(int(number) if known else condition.size)


class Text:
    """A column as texts of so many bytes at most."""

    def __init__(self, column: str, size: int) -> None:
        self.condition = Condition(column, size, text=True)

    def value(self, cell: Any) -> Tensor:
        """A cell's text, cut where it is too long, at a character's end; an empty cell's is empty. ToolkitError for
        anything else."""
        name, size = self.condition.name, self.condition.size
        if cell is not None and not isinstance(cell, str):
            raise ToolkitError(f"dataset.texts=[{name}]: it has {cell!r:.60}: name a column whose cells are texts")
        content = (cell or "").replace("\0", " ").encode()
        if len(content) > size:
            log_once(_logger, f"column {name}: texts of more than {size} bytes are cut (dataset.text_bytes={size})")
        return self.condition.encoded(content[:size].decode(errors="ignore"))
