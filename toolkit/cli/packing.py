"""A dataset's examples into shards."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from toolkit.batches import split_batches
from toolkit.config import PartConfig
from toolkit.dataset import SPLITS, Dataset
from toolkit.datasets.arrays import ArrayDataset
from toolkit.datasets.shards import key_of
from toolkit.datasets.tars.layout import NAME, Index, Shard, places_name
from toolkit.datasets.tars.members import END, write_members
from toolkit.datasets.tars.tensors import LABEL, to_member
from toolkit.errors import ToolkitError
from toolkit.lengths.known import lengths_of
from toolkit.schema import signature
from toolkit.spec import DataSpec
from toolkit.writing import replacing, write_text

TOGETHER = 32
"""Examples that a process reads at once."""
ORDER = 0
"""Seed of the order in which training examples lie."""

Member = tuple[str, bytes]
Watched = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


class Options(Protocol):
    """What of ``PackOptions`` is asked for here."""

    @property
    def shard_mb(self) -> int: ...

    @property
    def form(self) -> str: ...

    @property
    def workers(self) -> int | None: ...


def pack(dataset: Dataset, part: PartConfig, folder: Path, options: Options, watched: Watched) -> Index:
    """Writes shards, then their index. ToolkitError where the folder has one, x is not what its file holds, or examples
    are of unequal lengths."""
    if any(lengths_of(dataset, split) for split in SPLITS):
        raise ToolkitError("dataset.lengths: shards hold examples of one length: leave it out, or set it to equal")
    if (folder / NAME).exists():
        raise ToolkitError(f"{folder} holds shards already: take another folder for out=")
    folder.mkdir(parents=True, exist_ok=True)
    files = named_files(dataset, part)
    form = Form(dataset, options.form)
    shards: dict[str, tuple[Shard, ...]] = {}
    for split in SPLITS:
        if size := dataset.size(split):
            with watched(split, size) as progress:
                shards[split] = _pack_split(dataset, split, folder, form, options, progress)
    index = Index(dataset.spec, files, form.members, shards)
    write_text(folder / NAME, index.text())
    return index


def named_files(dataset: Dataset, part: PartConfig) -> str:
    """The dataset whose files these are; empty where it has none that its class alone can write."""
    if isinstance(dataset, ArrayDataset):
        return str(dataset.found_options().get(dataset.files_option) or part.options.get(dataset.files_option) or "")
    return "" if "source" in signature("dataset", part.name).given else part.name


class Form:
    """How examples are kept: ``members`` says it, by tensor, once the first is written."""

    def __init__(self, dataset: Dataset, form: str) -> None:
        self.spec, self.files, self.form = dataset.spec, dataset, form
        self.members: dict[str, tuple[str, str]] = {}

    def of(self, row: dict[str, Tensor]) -> list[Member]:
        """An example's members."""
        members = []
        for name, value in row.items():
            member, content = self._member(name, value)
            if member.endswith(f".{LABEL}"):
                value = value.long()
            self.members.setdefault(name, (member, str(value.dtype).removeprefix("torch.")))
            members.append((member, content))
        return members

    def _member(self, name: str, value: Tensor) -> Member:
        if name == "x" and self.form == "file":
            return f"x{self.files.suffix}", content_of(self.files, value, self.spec)
        return to_member(name, value, self.spec.levels if name == "x" else None)


def content_of(files: Dataset, x: Tensor, spec: DataSpec) -> bytes:
    """The file of an example. ToolkitError where it does not hold it as it is."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"x{files.suffix}"
        files.write(x, spec, path)
        content = path.read_bytes()
        again = files.read(path, spec)
    if again.shape != x.shape or not bool((again == x).all()):
        raise ToolkitError(f"form=file: {files.suffix} files do not hold this data as it is: form=array does")
    return content


def _pack_split(
    dataset: Dataset, split: str, folder: Path, form: Form, options: Options, progress: Callable[[int], None]
) -> tuple[Shard, ...]:
    size, limit = dataset.size(split), options.shard_mb * 1_000_000
    generator = torch.Generator().manual_seed(ORDER)
    order = torch.randperm(size, generator=generator).tolist() if split == "train" else list(range(size))
    places = np.zeros((size, 3), np.int64)
    shards: list[Shard] = []
    rows, done = _rows(dataset, split, order, options.workers), 0
    while done < size:
        name = f"{split}-{len(shards):06d}.tar"
        with replacing(folder / name) as partial, partial.open("xb") as file:
            at, begun = 0, done
            while done < size and at < limit:
                index = order[done]
                written = write_members(file, key_of(index), form.of(next(rows)))
                places[index] = len(shards), at, written
                at, done = at + written, done + 1
                progress(done)
            file.write(END)
            file.flush()
            os.fsync(file.fileno())
        shards.append(Shard(name, at + len(END), done - begun))
    content = io.BytesIO()
    np.save(content, places, allow_pickle=False)
    with replacing(folder / places_name(split)) as partial:
        partial.write_bytes(content.getvalue())
    return tuple(shards)


def _rows(dataset: Dataset, split: str, order: list[int], workers: int | None) -> Iterator[dict[str, Tensor]]:
    """Examples by their places, one at a time."""
    batches = split_batches(dataset, split, torch.device("cpu"), batch_size=TOGETHER, places=order, workers=workers)
    for batch in batches:
        yield from batch.rows()
