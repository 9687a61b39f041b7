"""The laws of datasets, as tests that a plugin's tests inherit."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from toolkit.dataset import SPLITS, Dataset, collate, gather
from toolkit.lengths.known import lengths_of
from toolkit.spec import Condition, DataSpec
from toolkit.testing.laws import Laws

FEW = 8
"""Examples to check in each split."""


class DatasetSuite(Laws):
    """Subclass it as ``class TestMine(DatasetSuite)`` and build the dataset in ``make``.

    Where the dataset needs files, an autouse fixture of the subclass may write them to ``tmp_path`` and set the folder
    on ``self``.
    """

    lossless: ClassVar[bool] = True
    """Whether ``read`` returns exactly what ``write`` got."""

    def make(self) -> Dataset:
        raise NotImplementedError

    def test_examples_have_the_shape_type_and_range_of_the_spec(self) -> None:
        dataset = self.make()
        for split, index in _examples(dataset):
            check_data(dataset.example(split, index, _generator())["x"], dataset.spec)

    def test_examples_carry_every_condition(self) -> None:
        dataset = self.make()
        for split, index in _examples(dataset):
            example = dataset.example(split, index, None)
            assert set(example) == {"x", *(condition.name for condition in dataset.spec.conditions)}
            for condition in dataset.spec.conditions:
                check_condition(example[condition.name], condition, example["x"])

    def test_lengths_are_those_of_the_examples(self) -> None:
        dataset = self.make()
        known = {split: lengths for split in SPLITS if (lengths := lengths_of(dataset, split)) is not None}
        if not known:
            pytest.skip("its examples have one length")
        assert set(known) == {split for split in SPLITS if dataset.size(split)} | set(known)
        for split, lengths in known.items():
            assert len(lengths) == dataset.size(split), f"{split}: not a length for each example"
            assert max(lengths, default=1) <= dataset.spec.axes[0], f"{split}: a length is above the spec's"
        for split, index in _examples(dataset):
            for generator in (None, _generator()):
                length = dataset.example(split, index, generator)["x"].shape[1]
                assert known[split][index] == length, (
                    f"{split} {index}: of {length} positions, said {known[split][index]}"
                )

    def test_label_names_are_unique(self) -> None:
        for condition in self.make().spec.conditions:
            assert len(set(condition.labels)) == len(condition.labels), f"{condition.name}: a label occurs twice"
            assert len(condition.labels) in (0, condition.size), f"{condition.name}: not a label for each index"

    def test_the_training_split_is_not_empty(self) -> None:
        assert self.make().size("train") > 0

    def test_without_a_generator_nothing_is_random(self) -> None:
        dataset, again = self.make(), self.make()
        for split, index in _examples(dataset):
            expected = dataset.example(split, index, None)
            torch.manual_seed(index)  # torch's global generator must not matter
            assert_same(dataset.example(split, index, None), expected)
            assert_same(again.example(split, index, None), expected)

    def test_a_generator_decides_what_is_random(self) -> None:
        dataset = self.make()
        for split, index in _examples(dataset):
            expected = dataset.example(split, index, _generator())
            torch.manual_seed(index)
            assert_same(dataset.example(split, index, _generator()), expected)

    @pytest.mark.parametrize("random", [False, True])
    def test_a_batch_is_its_examples(self, random: bool) -> None:
        dataset = self.make()
        if type(dataset).batch is Dataset.batch:
            pytest.skip("reads a batch one example after the other")
        for split in SPLITS:
            few = min(FEW, dataset.size(split))
            indices = [*range(few)[::-1], *range(few)[::3]]  # in another order, and some again
            generators, again = ([_generator(seed) for seed in range(len(indices))] for _ in range(2))
            if indices:
                batch = dataset.batch(split, indices, generators if random else None)
                expected = collate(dataset, split, indices, again if random else None)
                assert_same(batch, expected, "a batch and its examples")
                types = [{name: value.dtype for name, value in tensors.items()} for tensors in (batch, expected)]
                assert types[0] == types[1], f"a batch has other types than its examples: {types}"

    @pytest.mark.parametrize("random", [False, True])
    def test_a_batch_from_the_table_is_its_examples(self, random: bool) -> None:
        dataset = self.make()
        if type(dataset).table is Dataset.table:
            pytest.skip("keeps no table of its examples")
        for split in SPLITS:
            table, few = dataset.table(split), min(FEW, dataset.size(split))
            if table is None or not few:
                continue
            for name, column in table.items():
                assert len(column) == dataset.size(split), f"{name}: not a row for each example of {split}"
            indices = [*range(few)[::-1], dataset.size(split) - 1, *range(few)[::3]]
            generators, again = ([_generator(seed) for seed in range(len(indices))] for _ in range(2))
            batch = gather(dataset, table, split, indices, generators if random else None)
            expected = collate(dataset, split, indices, again if random else None)
            assert_same(batch, expected, "a batch from the table and its examples")
            types = [{name: value.dtype for name, value in tensors.items()} for tensors in (batch, expected)]
            assert types[0] == types[1], f"a batch from the table has other types than its examples: {types}"

    def test_a_batch_from_the_table_asks_nothing_of_the_device(self) -> None:
        """It is made of tensors that have no values, on a device of their own."""
        dataset = self.make()
        table = dataset.table("train") if dataset.size("train") else None
        if table is None:
            pytest.skip("keeps no table of its examples")
        indices = [0, dataset.size("train") - 1]
        draws = dataset.draws("train", indices, [_generator(seed) for seed in indices])
        rows = {name: column[indices].to("meta") for name, column in table.items()}
        batch = dataset.from_table(rows, {name: value.to("meta") for name, value in draws.items()})
        for name, value in batch.items():
            assert value.device.type == "meta", f"{name} of a batch from the table lies on {value.device}"

    def test_splits_start_with_different_examples(self) -> None:
        dataset = self.make()
        first = {split: dataset.example(split, 0, None)["x"] for split in SPLITS if dataset.size(split)}
        for split, other in [("train", "val"), ("train", "test"), ("val", "test")]:
            if split in first and other in first:
                assert not _equal(first[split], first[other]), f"{split} and {other} share their first example"

    def test_what_is_written_is_read_back(self, tmp_path: Path) -> None:
        dataset = self.make()
        for split, index in _examples(dataset):
            x = dataset.example(split, index, None)["x"]
            path = tmp_path / f"{split} {index}{dataset.suffix}"
            dataset.write(x, dataset.spec, path)
            reread = dataset.read(path, dataset.spec)
            check_data(reread, dataset.spec)
            if self.lossless:
                assert _equal(reread, x), f"{path.name}: read returns other data than was written"

    def test_pieces_are_the_whole(self, tmp_path: Path) -> None:
        dataset = self.make()
        path, again = tmp_path / f"whole{dataset.suffix}", tmp_path / f"pieces{dataset.suffix}"
        x = dataset.example("train", 0, None)["x"]
        dataset.write(x, dataset.spec, path)
        whole = dataset.read(path, dataset.spec)
        joined, length = torch.cat(list(dataset.pieces(path, dataset.spec)), 1), dataset.length(path, dataset.spec)
        assert length == joined.shape[1], f"pieces of {joined.shape[1]} positions are said to be {length}"
        assert _equal(joined, whole), "the pieces of a file differ from what read gives"
        dataset.write_pieces(iter(x.split(max(1, x.shape[1] // 3), 1)), dataset.spec, again)
        assert _equal(dataset.read(again, dataset.spec), whole), "a file written in pieces differs from one of write"

    def test_a_file_in_memory_is_the_file(self, tmp_path: Path) -> None:
        dataset = self.make()
        path, spec = tmp_path / f"x{dataset.suffix}", dataset.spec
        dataset.write(dataset.example("train", 0, None)["x"], spec, path)
        content = dataset.read_bytes(path.read_bytes(), path.name, spec)
        assert _equal(content, dataset.read(path, spec)), "read_bytes gives other data than read of the same file"

    def test_codecs_give_data_back(self) -> None:
        dataset = self.make()
        codecs = {n: codec for n, codec in dataset.codecs(dataset.spec).items() if not codec.missing}
        if not codecs:
            pytest.skip("offers no codecs to be compared with")
        x = dataset.example("train", 0, None)["x"]
        for name, codec in codecs.items():
            assert codec.qualities, f"{name} has no qualities"
            assert len(set(codec.qualities)) == len(codec.qualities), f"{name}: a quality occurs twice"
            for quality in codec.qualities:
                which, coded = f"{name}, {codec.words(quality)}", codec.through(x, quality)
                assert coded.x.shape == x.shape, f"{which}: x is {tuple(coded.x.shape)}, it was {tuple(x.shape)}"
                check_data(coded.x, dataset.spec)
                assert 0 <= coded.header < len(coded.data), f"{which}: all of the file is header"
                if quality is None and dataset.spec.levels is not None:
                    assert _equal(coded.x, x), f"{which}: gives other data than it was given"
                assert codec.through(x, quality).data == coded.data, f"{which}: other bytes when asked again"

    def test_plot_writes_a_png(self, tmp_path: Path) -> None:
        dataset = self.make()
        x = dataset.example("train", 0, None)["x"][None]
        dataset.plot([x, torch.cat([x, x])], dataset.spec, tmp_path / "sheet.png")
        assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")

    def test_a_worker_gets_the_same_dataset(self) -> None:
        dataset = self.make()
        copy = pickle.loads(pickle.dumps(dataset))
        assert copy.spec == dataset.spec
        for split, index in _examples(dataset):
            assert_same(copy.example(split, index, None), dataset.example(split, index, None))


def check_data(x: Tensor, spec: DataSpec) -> None:
    """Checks one example against the spec: shape (except varying axes), type and range."""
    varying = (False, *(spec.varying or (False,) * spec.rank))
    assert x.ndim == len(spec.shape), f"x is {tuple(x.shape)}, the spec says {spec.shape}"
    for length, expected, free in zip(x.shape, spec.shape, varying, strict=True):
        assert free or length == expected, f"x is {tuple(x.shape)}, the spec says {spec.shape}"
    if spec.levels is None:
        assert x.is_floating_point(), f"data without levels is float, not {x.dtype}"
        assert x.abs().max() <= 1, "data without levels must be in [-1, 1]"
    else:
        assert not x.is_floating_point(), f"levels are integers, not {x.dtype}"
        # as Python numbers: uint8 has no 256
        assert int(x.min()) >= 0, "levels start at 0"
        assert int(x.max()) < spec.levels, f"levels must be below {spec.levels}"


def check_condition(value: Tensor, condition: Condition, x: Tensor) -> None:
    """Checks the type, shape and range of one example's condition; the label "none" is allowed."""
    steps = (condition.steps(x.shape[1]),) if condition.per_step else ()
    if condition.text:
        assert value.dtype == torch.uint8, f"{condition.name} must be the bytes of a text (uint8), not {value.dtype}"
        assert value.shape == (condition.size,), f"{condition.name} is {tuple(value.shape)}, not {(condition.size,)}"
        assert torch.equal(condition.encoded(condition.decoded(value)), value), f"{condition.name} is no UTF-8 text"
        return
    if condition.real:
        assert value.is_floating_point(), f"{condition.name} is real, not {value.dtype}"
        assert value.shape == (*steps, condition.size), f"{condition.name} is {tuple(value.shape)}"
        return
    assert value.dtype == torch.int64, f"{condition.name} must be labels (int64), not {value.dtype}"
    assert value.shape == steps, f"{condition.name} is {tuple(value.shape)}, not {steps}"
    assert int(value.min()) >= 0, f"{condition.name} has no label {int(value.min())}"
    assert int(value.max()) <= condition.size, f"{condition.name} has no label {int(value.max())}"


def assert_same(example: dict[str, Tensor], expected: dict[str, Tensor], what: str = "one call and the next") -> None:
    """Checks that two examples are equal, bit for bit."""
    assert example.keys() == expected.keys()
    for name, value in example.items():
        assert _equal(value, expected[name]), f"{name} differs between {what}"


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a == b).all())


def _generator(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _examples(dataset: Dataset) -> Iterator[tuple[str, int]]:
    for split in SPLITS:
        for index in range(min(FEW, dataset.size(split))):
            yield split, index
