"""What a command goes through, each read when its turn comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from toolkit.cli.long import LongFile, read
from toolkit.cli.named import find, names_of
from toolkit.model import Model

MOST = 1 << 26
"""Numbers of data in memory at once, unless one example has more."""


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
