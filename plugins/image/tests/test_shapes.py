from __future__ import annotations

import numpy as np
import pytest
import torch

from toolkit import Dataset
from toolkit.testing.dataset import DatasetSuite
from toolkit_image.shapes import COLORS, SHAPES, VARIANCE, ShapesDataset, caption_of, plane


class TestShapes(DatasetSuite):
    def make(self) -> Dataset:
        return ShapesDataset(train_size=50, val_size=20, test_size=10)


class TestLargeShapes(DatasetSuite):
    def make(self) -> Dataset:
        return ShapesDataset(size=48, train_size=9, val_size=9, test_size=9)


class TestCaptionedShapes(DatasetSuite):
    def make(self) -> Dataset:
        return ShapesDataset(size=16, train_size=20, val_size=9, test_size=9, captions=True, unseen=("red star",))


def test_captions_name_shape_and_color() -> None:
    dataset = ShapesDataset(size=8, captions=True)
    caption, texts = dataset.spec.conditions[2], set()
    for i in range(100):
        example = dataset.example("train", i, None)
        texts.add(caption.decoded(example["caption"]))
        assert caption_of(list(SHAPES)[example["shape"]], list(COLORS)[example["color"]]) in texts
    assert {text.split()[0] for text in texts} == {"a", "an"}
    assert caption_of("star", "red") == "a red star"
    assert caption_of("ring", "orange") == "an orange ring"
    assert caption.size == len("an orange triangle")


def test_what_is_unseen_is_in_testing_alone() -> None:
    """Examples of other combinations are as they were."""
    unseen = tuple(f"red {shape}" for shape in SHAPES)
    whole, rest = (ShapesDataset(size=8, unseen=names) for names in ((), unseen))

    def combinations(dataset: ShapesDataset, split: str) -> list[tuple[int, int]]:
        return [(int(e["shape"]), int(e["color"])) for e in (dataset.example(split, i, None) for i in range(80))]

    for split in ("train", "val"):
        before, after = combinations(whole, split), combinations(rest, split)
        assert 0 in {color for _, color in before}
        assert {color for _, color in after} == set(range(1, 8))
        assert all(one == other for one, other in zip(before, after, strict=True) if one[1])
    assert combinations(whole, "test") == combinations(rest, "test")
    assert torch.equal(whole.example("test", 0, None)["x"], rest.example("test", 0, None)["x"])


@pytest.mark.parametrize("text", ["red", "star red", "red stars", "red star "])
def test_an_unseen_combination_that_there_is_not(text: str) -> None:
    with pytest.raises(ValueError, match=rf"unseen=\[{text}\]"):
        ShapesDataset(unseen=(text,))


def test_something_is_left_to_train_on() -> None:
    with pytest.raises(ValueError, match="nothing is left"):
        ShapesDataset(unseen=tuple(f"{color} {shape}" for color in COLORS for shape in SHAPES))


def test_the_spec() -> None:
    spec = ShapesDataset().spec
    assert (spec.shape, spec.levels) == ((3, 32, 32), 256)
    assert {condition.name: condition.labels for condition in spec.conditions} == {
        "shape": tuple(SHAPES),
        "color": tuple(COLORS),
    }


def test_the_sizes_of_splits_change_no_example() -> None:
    small, large = ShapesDataset(train_size=5, val_size=1), ShapesDataset()
    assert (small.size("train"), small.size("val"), large.size("test")) == (5, 1, 2000)
    assert torch.equal(small.example("train", 4, None)["x"], large.example("train", 4, None)["x"])


def test_no_two_examples_are_alike() -> None:
    dataset = ShapesDataset()
    examples = [
        dataset.example(split, i, None)["x"].numpy().tobytes() for split in ("train", "val", "test") for i in range(100)
    ]
    assert len(set(examples)) == 300


def test_the_variance() -> None:
    dataset = ShapesDataset()
    x = torch.stack([dataset.example("train", i, None)["x"] for i in range(1000)])
    assert dataset.spec.scale(x).var().item() == pytest.approx(VARIANCE, rel=0.03)


def test_labels_are_evenly_spread() -> None:
    dataset = ShapesDataset()
    examples = [dataset.example("train", i, None) for i in range(1000)]
    for name, count in [("shape", len(SHAPES)), ("color", len(COLORS))]:
        histogram = torch.stack([example[name] for example in examples]).bincount(minlength=count)
        assert histogram.min() > 0.7 * 1000 / count


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_fills_a_fair_part_of_its_square(shape: str) -> None:
    x, y = plane(100)
    inside = SHAPES[shape](1.2 * x, 1.2 * y) < 0
    assert 0.1 < inside.mean() < 0.75
    assert not inside[[0, -1]].any()
    assert not inside[:, [0, -1]].any()


def test_shapes_are_told_apart() -> None:
    x, y = plane(100)
    masks = [distance(1.2 * x, 1.2 * y) < 0 for distance in SHAPES.values()]
    for i, mask in enumerate(masks):
        for other in masks[:i]:
            assert np.mean(mask != other) > 0.02


def test_the_color_is_the_labels() -> None:
    dataset = ShapesDataset()
    table = torch.tensor(list(COLORS.values())) * 255
    for i in range(300):
        example = dataset.example("train", i, None)
        if list(SHAPES)[example["shape"]] in ("circle", "square", "hexagon"):
            pixels = example["x"].flatten(1).T.float()
            assert (pixels - table[example["color"]]).abs().amax(1).min() < 35


def test_there_is_no_example_past_the_end() -> None:
    with pytest.raises(IndexError, match="test has 3 examples, no index 3"):
        ShapesDataset(test_size=3).example("test", 3, None)


@pytest.mark.parametrize("option", ["train_size", "val_size", "test_size", "size"])
def test_sizes_that_make_no_sense(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}=0"):
        ShapesDataset(**{option: 0})
