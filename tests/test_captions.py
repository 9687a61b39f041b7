"""What a sheet says beside its examples, and which examples of a split it shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from toolkit import Condition, DataSpec
from toolkit.plots.captions import LINE, Captions, plot_captioned
from toolkit.plots.sheet import plot_sheet
from toolkit.stages.pictures import labels_of, spread

FLAT, DEEP = DataSpec(1, (20, 30)), DataSpec(1, (3, 20, 30))


def plot(rows: Sequence[Tensor], spec: DataSpec, path: Path) -> None:
    plot_sheet(path, [row.numpy() for row in rows])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, str]]:
    """Every text that is drawn, with its place."""
    texts: list[tuple[int, int, str]] = []
    text = ImageDraw.ImageDraw.text

    def draw(self: Any, place: tuple[float, float], words: str, *more: Any) -> None:
        texts.append((round(place[0]), round(place[1]), words))
        text(self, place, words, *more)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", draw)
    return texts


def test_a_sheet_has_its_rows_unchanged_below_their_captions(
    tmp_path: Path, written: list[tuple[int, int, str]]
) -> None:
    rows = [torch.rand(3, 1, 20, 30) * 2 - 1 for _ in range(2)]
    captions = Captions("run: step 60", ("original", "reconstruction"), (["dress", "hat", "한글"], []))
    plot_captioned(plot, rows, FLAT, tmp_path / "sheet.png", captions)
    sheet = pixels(tmp_path / "sheet.png")
    assert [words for *_, words in written] == ["run: step 60", "dress", "hat", "한글", "original", "reconstruction"]
    left = sheet.shape[1]
    for row in rows:
        plot([row], FLAT, tmp_path / "row.png")
        alone = pixels(tmp_path / "row.png")
        height, width = alone.shape[:2]
        left = sheet.shape[1] - width
        (top,) = [at for at in range(len(sheet) - height + 1) if (sheet[at : at + height, left:] == alone).all()]
        assert top >= LINE
        assert (sheet[top : top + height, :left] < 128).any(), "nothing is written beside the row"
    cells = [x for x, _, words in written if words in ("dress", "hat", "한글")]
    assert left < cells[0] < cells[1] < cells[2]


def test_what_a_cell_has_no_room_for_is_cut(tmp_path: Path, written: list[tuple[int, int, str]]) -> None:
    captions = Captions("", (), (["a very long name of a class that never ends", "b"],))
    plot_captioned(plot, [torch.zeros(2, 1, 20, 30)], FLAT, tmp_path / "sheet.png", captions)
    assert written[1][2].startswith("a very")
    assert written[1][2].endswith("…")
    assert written[2][2] == "b"


def test_with_more_axes_what_belongs_together_stays_together(
    tmp_path: Path, written: list[tuple[int, int, str]]
) -> None:
    """Originals above their reconstructions, clip by clip, and what each line is beside it."""
    given: list[list[int]] = []

    def watched(rows: Sequence[Tensor], spec: DataSpec, path: Path) -> None:
        given.append([len(row) for row in rows])
        plot(rows, spec, path)

    rows = [torch.zeros(2, 1, 3, 20, 30), torch.zeros(1, 1, 3, 20, 30)]
    plot_captioned(watched, rows, DEEP, tmp_path / "sheet.png", Captions("t", ("above", "below"), (["left", "up"], [])))
    assert given == [[1, 1], [1]]
    assert [words for *_, words in written] == ["t", "above, left", "below", "above, up"]


def test_a_dataset_that_writes_no_picture_has_its_plot_as_it_is(tmp_path: Path) -> None:
    def plot_text(rows: Sequence[Tensor], spec: DataSpec, path: Path) -> None:
        path.write_text(f"{len(rows)} rows")

    plot_captioned(plot_text, [torch.zeros(1, 1, 2, 2)] * 2, FLAT, tmp_path / "a.png", Captions("t", (), ()))
    assert (tmp_path / "a.png").read_text() == "2 rows"


@pytest.mark.parametrize("size", [0, 1, 3, 8, 9, 100, 12345])
def test_examples_to_look_at_are_from_all_over_the_split(size: int) -> None:
    places = spread(size, 8)
    assert places == spread(size, 8) == sorted(set(places))
    assert len(places) == min(8, size)
    assert all(size * i // len(places) <= place < size * (i + 1) // len(places) for i, place in enumerate(places))


def test_they_do_not_keep_step_with_classes_that_take_turns() -> None:
    assert len({place % 9 for place in spread(720, 8)}) > 3
    assert len({place % 10 for place in spread(10_000, 8)}) > 3


def test_labels_are_those_of_the_conditions() -> None:
    known = (
        Condition("shape", 2, ("star", "ring")),
        Condition("number", 5),
        Condition("move", 3, ("left", "right", "stay"), per_step=True),
        Condition("pose", 4, real=True),
    )
    values = {
        "shape": torch.tensor([1, 2]),
        "number": torch.tensor([3, 0]),
        "move": torch.tensor([[0, 0, 1, 2], [2, 2, 2, 2]]),
        "pose": torch.zeros(2, 4),
    }
    assert labels_of(known, values, 2) == ["ring, number 3, left right…", "none, number 0, stay"]
    assert labels_of(known, {}, 3) == ["", "", ""]
