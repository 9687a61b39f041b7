"""Tar files as a stream: ones without an index, or far away."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from itertools import chain, repeat
from typing import Annotated, Any, NamedTuple, final

import torch
from torch import Tensor
from typing_extensions import Doc

from toolkit.dataset import SPLITS, Dataset, SourceFile
from toolkit.datasets.arrays import ArrayDataset
from toolkit.datasets.files import split_named
from toolkit.datasets.foreign import Axes, Channels, Crop, Files, Fitting, Levels, Rate, spec_of
from toolkit.datasets.tars.expand import expand
from toolkit.datasets.tars.layout import read_index
from toolkit.datasets.tars.members import members, split_key, walk
from toolkit.datasets.tars.order import generator_of, permutation, share_of
from toolkit.datasets.tars.rows import Rows
from toolkit.datasets.tars.store import Store
from toolkit.errors import ToolkitError
from toolkit.ranges import NonNegativeInt, PositiveInt
from toolkit.spec import Condition
from toolkit.stream_dataset import State, StreamDataset, Streamed

Shuffle = Annotated[PositiveInt, Doc("examples that are mixed at once, of one tar file; tar files are mixed, too")]
Example = Callable[[bytes, torch.Generator | None], dict[str, Tensor]]


class Block(NamedTuple):
    """Neighbors of a tar file that are mixed."""

    start: int
    """The first byte from which on they are found."""
    before: int
    """The number of the example there."""
    size: int
    examples: list[tuple[str, bytes]]
    """Keys and members."""


@final
class ShardStreamDataset(StreamDataset, ArrayDataset):
    """Tar files in webdataset's layout, read one after the other: on this machine, or behind a URL.

    Those that ``toolkit pack`` wrote say themselves what is in them; of others the options do. Without ``shards`` a tar
    file belongs to the split that its name begins with, such as ``val-000.tar``, and any other to train. Each pass
    reads the files in another order, and mixes ``shuffle`` neighbors; a run goes on exactly where it stopped.

    Args:
        root: the folder, or a URL that fsspec opens, such as https://… or s3://….
        shards: by split the tar files in it, with {000..099} for many; a server that lists no files needs it.
        member: the suffix of the member that is the data, such as jpg; null: the first that files reads, or npy.
        labels: by the suffix of a member with a number in it, such as cls, how many classes there are; a field of a
            JSON member is json.FIELD.
        held: validation and test examples, at most, which are kept in memory.
    """

    def __init__(
        self,
        dataset_class: Callable[[str], type[Dataset]],
        *,
        root: str,
        shards: dict[str, str] | None = None,
        files: Files = None,
        channels: Channels = 3,
        axes: Axes = (64, 64),
        levels: Levels = 256,
        rate: Rate = None,
        crop: Crop = "random",
        member: str | None = None,
        labels: dict[str, PositiveInt] | None = None,
        shuffle: Shuffle = 1000,
        held: NonNegativeInt = 1024,
    ) -> None:
        if not root.strip():
            raise ValueError("root is empty: where are the tar files?")
        self.store, self.shuffle, self.held = Store(root), shuffle, held
        index = read_index(self.store)
        self.kept = files or (index.files if index else "")
        of_files = dataset_class(self.kept) if self.kept else None
        if of_files is not None:
            self.use_files(of_files)
        self._read: Example
        if index is not None:
            self.spec, rows = index.spec, Rows(index, of_files)
            self._read = rows.drawn
            self.tars = {split: [shard.name for shard in tars] for split, tars in index.shards.items()}
        else:
            conditions = tuple(Condition(name.rpartition(".")[2], size) for name, size in (labels or {}).items())
            self.spec = spec_of(of_files, channels, axes, levels, rate, conditions)
            self._read = Foreign(Fitting(of_files, self.spec, crop), member, tuple(labels or {})).drawn
            self.tars = _tars(self.store, shards or {})
        if not self.tars.get("train"):
            raise ToolkitError(f"{self.store.root}: no tar files for train")

    def stream(self, split: str, seed: int, shard: int, shards: int, state: State | None) -> Iterator[Streamed]:
        """State: which of its tar files a part is in, where a block begins there, how many examples lie before it and
        are in it, and how many of them it has given."""
        tars = self.tars.get(split, [])
        begin = {"tar": 0, "start": 0, "before": 0, "size": self.shuffle, "given": 0}
        first = begin if state is None else dict(state)
        for number, (tar, offset, stride) in enumerate(share_of(permutation(len(tars), seed), shard, shards)):
            if number >= first["tar"]:
                here = first if number == first["tar"] else {**begin, "tar": number}
                draws = seed if split == "train" else None
                yield from self._of_tar(tars[tar], offset, stride, seed, draws, here)

    def _of_tar(
        self, tar: str, offset: int, stride: int, seed: int, draws: int | None, state: Mapping[str, int]
    ) -> Iterator[Streamed]:
        """Every ``stride``-th example of a tar file from a state on."""
        given, sizes = state["given"], chain((state["size"],), repeat(self.shuffle))
        blocks = self._blocks(tar, state["start"], state["before"], sizes, lambda number: number % stride == offset)
        for block in blocks:
            here = {**state, "start": block.start, "before": block.before, "size": block.size}
            order = permutation(len(block.examples), seed, tar, block.before)
            for count, place in enumerate(order[given:], given + 1):
                key, content = block.examples[place]
                yield Streamed(f"{tar}/{key}", self._example(tar, key, content, draws), {**here, "given": count})
            given = 0

    def _blocks(
        self, tar: str, start: int, before: int, sizes: Iterator[int], mine: Callable[[int], bool]
    ) -> Iterator[Block]:
        """A tar file's examples, by their numbers, in blocks."""
        number, size, examples = before, next(sizes), list[tuple[str, bytes]]()
        try:
            with closing(self.store.open(tar)) as file:
                for key, begin, end in walk(file, start):
                    if mine(number):
                        file.seek(begin)
                        examples.append((key, file.read(end - begin)))
                    number += 1
                    if len(examples) == size:
                        yield Block(start, before, size, examples)
                        start, before, size, examples = end, number, next(sizes), []
        except (OSError, ValueError) as e:
            raise ToolkitError(f"{self.store.path(tar)} cannot be read: {e}") from e
        if examples:
            yield Block(start, before, size, examples)

    def _example(self, tar: str, key: str, content: bytes, draws: int | None) -> dict[str, Tensor]:
        try:
            return self._read(content, None if draws is None else generator_of(draws, tar, key))
        except (ValueError, ToolkitError) as e:
            raise ToolkitError(f"{self.store.path(tar)}, example {key}: {e}") from e

    def source_files(self) -> Iterable[SourceFile]:
        """The tar files; none where they are behind a URL, as they have no time there."""
        for split, tars in ({} if self.store.remote else self.tars).items():
            for tar in tars:
                yield SourceFile(tar, self.store.path(tar), split)

    def found_options(self) -> Mapping[str, Any]:
        return {"files": self.kept} if self.kept else {}


class Foreign:
    """Reads examples that others have packed."""

    def __init__(self, fitting: Fitting, member: str | None, labels: tuple[str, ...]) -> None:
        self.fitting, self.labels = fitting, labels
        suffixes = fitting.files.suffixes if fitting.files else (".npy",)
        self.suffixes = (f".{member}",) if member else suffixes

    def drawn(self, content: bytes, generator: torch.Generator | None) -> dict[str, Tensor]:
        """An example. ValueError where it lacks a member, or one is not what it should be."""
        found = dict(members(content))
        data = next((name for name in found if name.lower().endswith(self.suffixes)), None)
        if data is None:
            suffixes, have = ", ".join(self.suffixes), ", ".join(split_key(name)[1] for name in found)
            raise ValueError(f"no member ends in {suffixes} (it has: {have}); dataset.member=SUFFIX says which it is")
        row = {"x": self.fitting.of_bytes(found[data], data, generator)}
        by_suffix = {split_key(name)[1]: value for name, value in found.items()}
        for label, condition in zip(self.labels, self.fitting.spec.conditions, strict=True):
            row[condition.name] = _label(label, by_suffix, condition)
        return row


def _label(name: str, found: Mapping[str, bytes], condition: Condition) -> Tensor:
    member, _, field = name.partition(".") if name not in found else (name, "", "")
    if member not in found:
        raise ValueError(f"it has no member {member} (it has: {', '.join(found)})")
    try:
        value = int(json.loads(found[member])[field] if field else found[member])
    except (KeyError, TypeError, ValueError) as e:
        raise ValueError(f"dataset.labels: {name} is no whole number: {e}") from e
    if not 0 <= value < condition.size:
        raise ValueError(f"dataset.labels: {name} is {value}, of {condition.size} classes")
    return torch.tensor(value)


def _tars(store: Store, shards: Mapping[str, str]) -> dict[str, list[str]]:
    """Names of the tar files by split. ValueError for an unknown split, ToolkitError where none can be listed."""
    if shards:
        unknown = [split for split in shards if split not in SPLITS]
        if unknown:
            raise ValueError(f"shards={dict(shards)}: {unknown[0]} is none of {', '.join(SPLITS)}")
        return {split: expand(word) for split, word in shards.items()}
    try:
        names = store.names(".tar")
    except (OSError, NotImplementedError) as e:
        raise ToolkitError(
            f"{store.root}: its files cannot be listed ({e}); dataset.shards names them, in YAML as"
            ' shards: {train: "train-{000..099}.tar"}'
        ) from e
    tars: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name in names:
        tars[split_named(re.split(r"[-_.]", name)[0]) or "train"].append(name)
    return tars
