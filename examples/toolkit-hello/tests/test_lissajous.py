"""The dataset: its kind's laws, the curves' equation, and files that hold none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from toolkit import Dataset
from toolkit.testing import DatasetSuite
from toolkit_hello.lissajous import RATIOS, VARIANCE, LissajousDataset


class TestLissajousDataset(DatasetSuite):
    def make(self) -> Dataset:
        return LissajousDataset(train_size=50, val_size=10, test_size=10)


def examples(n: int) -> list[dict[str, torch.Tensor]]:
    dataset = LissajousDataset()
    return [dataset.example("train", i, None) for i in range(n)]


def test_the_ratio_is_that_of_the_turns() -> None:
    """Each channel's spectrum has its peak at the label's number of turns."""
    for example in examples(40):
        power = torch.fft.rfft(example["x"].double() - 31.5).abs()
        across, down = power.argmax(1).tolist()
        assert f"{across}:{down}" == list(RATIOS)[example["ratio"]]


def test_the_variance() -> None:
    dataset = LissajousDataset()
    x = dataset.spec.scale(torch.stack([example["x"] for example in examples(2000)]))
    assert x.var().item() == pytest.approx(VARIANCE, rel=0.03)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has 0 rows; 8, of 2 numbers each, are needed"),
        (b"1,2\n" * 7, "has 7 rows"),
        (b"1,2,3\n" * 8, "of 2 numbers each"),
        (b"1,64\n" * 8, "outside 0 to 63"),
        (b"1,-1\n" * 8, "outside 0 to 63"),
        (b"1,2.5\n" * 8, "not a CSV file of whole numbers"),
        (b"\xff\x00", "not a CSV file of whole numbers"),
    ],
)
def test_files_that_hold_no_curve_are_a_sentence(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        LissajousDataset.read(tmp_path / "x.csv", LissajousDataset(length=8).spec)


def test_a_sheet_shows_curves_in_their_places(tmp_path: Path) -> None:
    from matplotlib.image import imread

    x = torch.stack([example["x"] for example in examples(3)])
    LissajousDataset.plot([x, x[:1]], LissajousDataset().spec, tmp_path / "sheet.png")
    sheet = imread(tmp_path / "sheet.png")[..., 0]
    assert sheet.shape == (200, 300)
    ink = np.array([[(sheet[i : i + 100, j : j + 100] < 0.9).any() for j in (0, 100, 200)] for i in (0, 100)])
    assert ink.tolist() == [[True, True, True], [True, False, False]]


@pytest.mark.parametrize("option", ["length", "train_size", "val_size", "test_size"])
def test_sizes_that_make_no_sense(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}=0"):
        LissajousDataset(**{option: 0})
