"""Packed shards: random access, on this machine or over the net."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from toolkit.dataset import SPLITS, Dataset, SourceFile
from toolkit.datasets.arrays import ArrayDataset
from toolkit.datasets.tars.layout import NAME, Index, places_name, read_index, read_places
from toolkit.datasets.tars.rows import Rows
from toolkit.datasets.tars.store import Store
from toolkit.errors import ToolkitError

PACK = "toolkit pack dataset=NAME out=DIR writes shards with an index"


@final
class ShardsDataset(ArrayDataset):
    """Examples that ``toolkit pack`` wrote to tar files, each read by itself, by its place.

    The same examples as of the dataset that was packed, without its augmentation: nothing is random. Files, plots and
    samples are that dataset's, too, if it is installed. A folder on this machine, or a URL that fsspec opens, such as
    ``https://…`` or ``s3://…``.

    Args:
        root: the folder, or its URL.
        files: the dataset whose files the data is written as; null: that which was packed, and NumPy's where it has
            none.
    """

    def __init__(self, dataset_class: Callable[[str], type[Dataset]], *, root: str, files: str | None = None) -> None:
        if not root.strip():
            raise ValueError(f"root is empty: where are the shards? {PACK}")
        self.store = Store(root)
        index = read_index(self.store)
        if index is None:
            raise ToolkitError(f"{self.store.path(NAME)}: no such file; {PACK}")
        self.index, self.spec, self.kept = index, index.spec, files or index.files
        of_files = dataset_class(self.kept) if self.kept else None
        if of_files is not None:
            self.use_files(of_files)
        self.rows = Rows(index, of_files)
        check_sizes(self.store, index)

    def size(self, split: str) -> int:
        return self.index.size(split)

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        """``x`` (channels, *axes) and the conditions; the generator is not used."""
        if not 0 <= index < self.size(split):
            raise IndexError(f"{split} has {self.size(split)} examples, no example {index}")
        return self._read(split, [index])[0]

    def batch(
        self, split: str, indices: Sequence[int], generators: Sequence[torch.Generator] | None
    ) -> dict[str, Tensor]:
        """The examples of these indices, stacked: of a URL they are asked for together."""
        batch: dict[str, Tensor] = default_collate(self._read(split, indices))
        return batch

    def _read(self, split: str, indices: Sequence[int]) -> list[dict[str, Tensor]]:
        shards = self.index.shards[split]
        rows = self.places[split][list(indices)].tolist()
        try:
            contents = self.store.stretches([(shards[number].name, start, size) for number, start, size in rows])
        except OSError as e:
            raise ToolkitError(f"{self.store.root}: examples of {split} cannot be read: {e}") from e
        examples = []
        for index, (number, _, _), content in zip(indices, rows, contents, strict=True):
            try:
                examples.append(self.rows.example(content, key_of(index)))
            except ValueError as e:
                raise ToolkitError(f"{self.store.path(shards[number].name)}, example {index} of {split}: {e}") from e
        return examples

    @cached_property
    def places(self) -> dict[str, np.ndarray]:
        return {split: read_places(self.store, self.index, split) for split in SPLITS if self.size(split)}

    def source_files(self) -> Iterable[SourceFile]:
        """Index and shards; none where they are behind a URL, as they have no time there."""
        if self.store.remote:
            return
        for split, shards in self.index.shards.items():
            for name in (*(shard.name for shard in shards), places_name(split)):
                yield SourceFile(name, self.store.path(name), split)
        yield SourceFile(NAME, self.store.path(NAME))

    def found_options(self) -> Mapping[str, Any]:
        return {"files": self.kept} if self.kept else {}


def key_of(index: int) -> str:
    """The key of an example's members."""
    return f"{index:09d}"


def check_sizes(store: Store, index: Index) -> None:
    """ToolkitError where a shard on this machine is gone, or not as long as it was written."""
    for shard in [] if store.remote else [shard for shards in index.shards.values() for shard in shards]:
        path = Path(store.path(shard.name))
        if not path.is_file():
            raise ToolkitError(f"{path}: no such file, and {NAME} names it: pack again, or copy it there")
        if path.stat().st_size != shard.size:
            raise ToolkitError(
                f"{path} has {path.stat().st_size} bytes, {shard.size} were written: copy it again, or pack again"
            )
