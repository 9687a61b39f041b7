"""The suite of datasets catches what goes wrong in parts of its kind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import random
from typing import Any

import pytest
import torch
from planted import assert_catches
from torch import Tensor
from toy.toy_plugin import TilesDataset, WavesDataset

from toolkit.dataset import Dataset, collate
from toolkit.file_codec import Coded, FileCodec
from toolkit.spec import Condition, DataSpec
from toolkit.testing.dataset import DatasetSuite


class Tiles(TilesDataset):  # type: ignore[misc]
    """Levels to be broken."""


class Waves(WavesDataset):  # type: ignore[misc]
    """Real numbers to be broken."""


Generators = Sequence[torch.Generator] | None


class DatasetCase(DatasetSuite):
    def __init__(self, part: type[Dataset] = Tiles) -> None:
        self.of = part

    def make(self) -> Dataset:
        return self.of()


class Uneven(Tiles):
    """Its examples differ along their first axis."""

    said = 0

    def __init__(self) -> None:
        super().__init__()
        self.spec = replace(self.spec, varying=(True, False))

    def lengths(self, split: str) -> list[int]:
        return [self._length(index) + self.said for index in range(self.size(split))]

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        made = super().example(split, index, generator)
        return {**made, "x": made["x"][:, : self._length(index)]}

    def _length(self, index: int) -> int:
        return 1 + index % (self.spec.axes[0] - 1)


class Misjudged(Uneven):
    said = 1


class Whimsical(Tiles):
    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        return super().example(split, int(random() * 8), generator)


class Ungoverned(Tiles):
    """Draws from torch's generator, not from the one that it is given."""

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        made = super().example(split, index, generator)
        return made if generator is None else {**made, "x": torch.randint(8, made["x"].shape)}


class OneTooMany(Tiles):
    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        made = super().example(split, index, generator)
        return {**made, "x": made["x"] + 1}


class Lengthwise(Tiles):
    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        made = super().example(split, index, generator)
        return {**made, "x": made["x"].movedim(0, -1)}


class SixteenBit(Waves):
    """Samples as integers have them, not in [-1, 1]."""

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        made = super().example(split, index, generator)
        return {**made, "x": made["x"] * 32767}


class Unlabelled(Tiles):
    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        return {"x": super().example(split, index, generator)["x"]}


class FromOne(Tiles):
    """Labels from 1 on."""

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        made = super().example(split, index, generator)
        return {**made, "kind": made["kind"] + 2}


class Leaking(Tiles):
    """Tests on what was trained on."""

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        return super().example("train", index, generator)


class LossyFiles(Tiles):
    @classmethod
    def write(cls, x: Tensor, spec: DataSpec, path: Path) -> None:
        path.write_text(json.dumps((x // 2 * 2).tolist()))


class Batching(Tiles):
    """Reads a batch at once, which the base does one by one."""

    def batch(self, split: str, indices: Sequence[int], generators: Generators) -> dict[str, Tensor]:
        return collate(self, split, indices, generators)


class Mirrored(Tiles):
    """From memory, files come out mirrored."""

    @classmethod
    def read_bytes(cls, content: bytes, name: str, spec: DataSpec) -> Tensor:
        return super().read_bytes(content, name, spec).flip(-1)


class OutOfOrder(Batching):
    def batch(self, split: str, indices: Sequence[int], generators: Generators) -> dict[str, Tensor]:
        return super().batch(split, sorted(indices), generators)


class OneGeneratorForAll(Batching):
    def batch(self, split: str, indices: Sequence[int], generators: Generators) -> dict[str, Tensor]:
        return super().batch(split, indices, None if generators is None else [generators[0]] * len(indices))


class Sparing(Batching):
    """Keeps a batch in fewer bytes."""

    def batch(self, split: str, indices: Sequence[int], generators: Generators) -> dict[str, Tensor]:
        whole = super().batch(split, indices, generators)
        return {**whole, "x": whole["x"].byte()}


class Keeping(Tiles):
    """Has a table, and mirrors half of what it gives to training."""

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        made = super().example(split, index, None)
        mirrored = generator is not None and torch.rand((), generator=generator) < 0.5
        return {**made, "x": made["x"].flip(-1)} if mirrored else made

    def table(self, split: str) -> dict[str, Tensor]:
        return collate(self, split, range(self.size(split)), None)

    def draws(self, split: str, indices: Sequence[int], generators: Sequence[torch.Generator]) -> dict[str, Tensor]:
        return {"flips": torch.stack([torch.rand((), generator=generator) < 0.5 for generator in generators])}

    def from_table(self, rows: dict[str, Tensor], draws: dict[str, Tensor]) -> dict[str, Tensor]:
        if not draws:
            return rows
        return {**rows, "x": torch.where(draws["flips"].view(-1, 1, 1, 1), rows["x"].flip(-1), rows["x"])}


class Short(Keeping):
    """Without the last example."""

    def table(self, split: str) -> dict[str, Tensor]:
        return {name: column[:-1] for name, column in super().table(split).items()}


class Reversed(Keeping):
    def table(self, split: str) -> dict[str, Tensor]:
        return {name: column.flip(0) for name, column in super().table(split).items()}


class Stingy(Keeping):
    """Gives out the bytes that its table has."""

    def table(self, split: str) -> dict[str, Tensor]:
        table = super().table(split)
        return {**table, "x": table["x"].byte()}


class OtherDraws(Keeping):
    def draws(self, split: str, indices: Sequence[int], generators: Sequence[torch.Generator]) -> dict[str, Tensor]:
        return {"flips": torch.rand(len(indices), generator=generators[0]) < 0.5}


class Asking(Keeping):
    """Mirrors some by a mask, for which the number of these must be known."""

    def from_table(self, rows: dict[str, Tensor], draws: dict[str, Tensor]) -> dict[str, Tensor]:
        x = rows["x"].clone()
        if draws:
            x[draws["flips"]] = x[draws["flips"]].flip(-1)
        return {**rows, "x": x}


class Astray(Keeping):
    """Leaves a condition on the CPU."""

    def from_table(self, rows: dict[str, Tensor], draws: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**super().from_table(rows, draws), "kind": torch.zeros(len(rows["kind"]))}


class Unpicklable(Tiles):
    def __init__(self) -> None:
        super().__init__()
        self.scale = lambda x: x


class LossyCodec(Tiles):
    """Gives other levels back than it was given, and says that it is without loss."""

    @classmethod
    def codecs(cls, spec: DataSpec) -> dict[str, FileCodec]:
        return {"halves": FileCodec(lambda x, _: Coded(b"-" + bytes(x.flatten().tolist()), 1, x // 2 * 2))}


class FlatCodec(Tiles):
    """Forgets the axes."""

    @classmethod
    def codecs(cls, spec: DataSpec) -> dict[str, FileCodec]:
        return {"flat": FileCodec(lambda x, _: Coded(b"-" + bytes(x.flatten().tolist()), 1, x.flatten()))}


class EmptyCodec(Tiles):
    """Counts all of a file as its header."""

    @classmethod
    def codecs(cls, spec: DataSpec) -> dict[str, FileCodec]:
        return {"empty": FileCodec(lambda x, _: Coded(b"----", 4, x))}


class TimedCodec(Tiles):
    """Writes something else into each file."""

    @classmethod
    def codecs(cls, spec: DataSpec) -> dict[str, FileCodec]:
        return {"timed": FileCodec(lambda x, _: Coded(str(random()).encode(), 0, x))}


class Pictureless(Tiles):
    @classmethod
    def plot(cls, rows: Any, spec: DataSpec, path: Path) -> None:
        path.write_bytes(b"GIF89a")


class Twins(Tiles):
    def __init__(self) -> None:
        super().__init__()
        self.spec = DataSpec(2, (8, 8), 8, conditions=(Condition("kind", 3, ("a", "b", "a")),))


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (Whimsical, "without a generator nothing is random"),
        (Ungoverned, "a generator decides what is random"),
        (OneTooMany, "examples have the shape type and range of the spec"),
        (Lengthwise, "examples have the shape type and range of the spec"),
        (SixteenBit, "examples have the shape type and range of the spec"),
        (Unlabelled, "examples carry every condition"),
        (FromOne, "examples carry every condition"),
        (Leaking, "splits start with different examples"),
        (LossyFiles, "what is written is read back"),
        (Mirrored, "a file in memory is the file"),
        (OutOfOrder, "a batch is its examples"),
        (OneGeneratorForAll, "a batch is its examples"),
        (Sparing, "a batch is its examples"),
        (Short, "a batch from the table is its examples"),
        (Reversed, "a batch from the table is its examples"),
        (Stingy, "a batch from the table is its examples"),
        (OtherDraws, "a batch from the table is its examples"),
        (Asking, "a batch from the table asks nothing of the device"),
        (Astray, "a batch from the table asks nothing of the device"),
        (Unpicklable, "a worker gets the same dataset"),
        (LossyCodec, "codecs give data back"),
        (FlatCodec, "codecs give data back"),
        (EmptyCodec, "codecs give data back"),
        (TimedCodec, "codecs give data back"),
        (Pictureless, "plot writes a png"),
        (Twins, "label names are unique"),
        (Misjudged, "lengths are those of the examples"),
    ],
)
def test_a_broken_dataset_is_caught(broken: type[Dataset], law: str, tmp_path: Path) -> None:
    words: dict[str, Any] = {"random": True} if law.endswith("is its examples") else {}
    if law in ("what is written is read back", "a file in memory is the file", "plot writes a png"):
        words = {"tmp_path": tmp_path}
    sound = next(cls for cls in (Waves, Batching, Keeping, Uneven, Tiles) if issubclass(broken, cls))
    assert_catches(DatasetCase(sound), DatasetCase(broken), law, **words)
