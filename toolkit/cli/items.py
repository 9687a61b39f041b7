"""What a command goes through: files, files in folders, or a split, each read when its turn comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from toolkit.cli.files import build_dataset_of
from toolkit.cli.long import LongFile, read
from toolkit.cli.named import find, names_of
from toolkit.errors import ToolkitError
from toolkit.model import Model


class Item(NamedTuple):
    """An example that is not read yet."""

    name: Callable[[], str]
    """After it is read, also where another file had to take its place."""
    read: Callable[[], dict[str, Tensor] | LongFile]
    """``x`` and, where it is labeled, its conditions; or a file to be read in pieces."""


def file_items(model: Model, words: Sequence[Path]) -> list[Item]:
    """The files that are named and those in folders that are named; ToolkitError for a folder without."""

    def reader(path: Path) -> Callable[[], dict[str, Tensor] | LongFile]:
        def example() -> dict[str, Tensor] | LongFile:
            x = read(model, path)
            return x if isinstance(x, LongFile) else {"x": x}

        return example

    files = find(words, model.files.suffixes)
    named = zip(files, names_of(files, words), strict=True)
    return [Item(partial(str, name), reader(path)) for path, name in named]


def split_items(model: Model, split: str, options: Mapping[str, str], limit: int | None = None) -> list[Item]:
    """A split's examples with their labels; ToolkitError for one without any."""
    dataset = build_dataset_of(model.bottom, dict(options))
    size = dataset.size(split)
    if not size:
        raise ToolkitError(f"split={split} has no examples")
    return [
        Item(partial(dataset.example_name, split, i), partial(dataset.example, split, i, None))
        for i in range(size if limit is None else min(size, limit))
    ]
