"""Plane waves over any axes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from toolkit import Dataset, DataSpec, registry
from toolkit.__main__ import run
from toolkit.datasets.waves import COUNT, PACES, WavesDataset, variance, waves
from toolkit.plots.sheet import CURVE, LEGIBLE, NARROW, WIDE, plot_sheet
from toolkit.testing.dataset import DatasetSuite

FEW = {"train_size": 20, "val_size": 9, "test_size": 9}


class TestWavesOfOneAxis(DatasetSuite):
    def make(self) -> Dataset:
        return WavesDataset(axes=(40,), channels=2, levels=256, **FEW)


class TestWavesOfTwoAxes(DatasetSuite):
    def make(self) -> Dataset:
        return WavesDataset(**FEW)


class TestWavesOfThreeAxes(DatasetSuite):
    def make(self) -> Dataset:
        return WavesDataset(axes=(4, 6, 8), channels=3, levels=2, **FEW)


class TestRealWaves(DatasetSuite):
    def make(self) -> Dataset:
        return WavesDataset(axes=(3, 2, 4, 5), levels=None, **FEW)


TINY = [
    "trainer.steps=2",
    "trainer.batch_size=4",
    "prior_trainer.steps=2",
    "prior_trainer.batch_size=4",
    "prior_trainer.allow_collapsed=true",  # two steps teach no codebook anything
    *(f"dataset.{split}={size}" for split, size in FEW.items()),
]


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("axes", "levels", "likelihood"),
    [
        ("[32]", "null", "normal"),
        ("[8,8]", "8", "categorical"),
        ("[4,8,8]", "16", "logistic"),
        ("[4,4,4,8]", "4", "logistic"),
    ],
)
@pytest.mark.slow
def test_the_core_alone_trains_and_samples_over_any_axes(
    axes: str, levels: str, likelihood: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody brings YAML, with what is written to a file read back from it."""
    monkeypatch.setattr(registry, "conf_folders", lambda: ())
    parts = ["dataset=waves", "encoder=patch", "decoder=patch", f"likelihood={likelihood}", "dim=16"]
    chosen = [*parts, f"dataset.axes={axes}", f"dataset.levels={levels}", "prior=categorical"]
    told = ["conditions.decoder=[pace]", "conditions.prior=[pace]"]
    folder = tmp_path / "run"
    assert run(["train", *chosen, *told, *TINY, f"hydra.run.dir={folder}"]) == 0
    assert run(["sample", f"run={folder}", "n=3", "condition.pace=fast", f"out={tmp_path / 'out'}"]) == 0
    files = sorted((tmp_path / "out").glob("sample-*.npy"))
    assert len(files) == 3
    assert run(["reconstruct", f"run={folder}", str(files[0])]) == 0


def examples(dataset: Dataset, n: int) -> list[dict[str, torch.Tensor]]:
    return [dataset.example("train", i, None) for i in range(n)]


def cycles(values: np.ndarray, axis: int) -> float:
    """Of one sine, per position along an axis: neighbours add up to 2 cos(2 pi cycles) times what is between them."""
    values = np.moveaxis(values, axis, 0)
    between = values[1:-1]
    share = ((values[2:] + values[:-2]) * between).sum() / (2 * np.square(between).sum())
    return float(np.arccos(np.clip(share, -1, 1)) / (2 * np.pi))


@pytest.mark.parametrize("pace", PACES)
@pytest.mark.parametrize("axes", [(32,), (12, 9), (5, 6, 7)], ids=str)
def test_a_wave_is_a_sine_of_its_pace_in_any_direction(
    axes: tuple[int, ...], pace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.datasets.waves.COUNT", 1)
    found = []
    for seed in range(300):
        wave = waves(np.random.default_rng(seed), pace, 1, axes)[0]
        found.append(np.linalg.norm([cycles(wave, axis) for axis in range(len(axes))]))
    low, high = PACES[pace]
    assert low <= min(found) < low + 0.02 * (high - low)
    assert high >= max(found) > high - 0.02 * (high - low)


def test_paces_are_told_apart_and_none_is_too_fast_to_see() -> None:
    ends = [end for pace in PACES.values() for end in pace]
    assert ends == sorted(set(ends))
    assert ends[-1] < 0.5


def test_a_mean_of_waves_obeys_their_difference_equation() -> None:
    """On one axis each wave is a root pair of a linear recurrence, three waves one of order six: exactly so."""
    values = waves(np.random.default_rng(1), "fast", 1, (60,))[0]
    windows = np.lib.stride_tricks.sliding_window_view(values, 2 * COUNT + 1)
    singular = np.linalg.svd(windows, compute_uv=False)
    assert singular[2 * COUNT] < 1e-12 < 1e-3 < singular[2 * COUNT - 1]


def test_longer_axes_show_more_of_the_same_waves() -> None:
    short, long = (WavesDataset(axes=axes, levels=None) for axes in ((8, 6), (16, 9)))
    for one, other in zip(examples(short, 5), examples(long, 5), strict=True):
        torch.testing.assert_close(one["x"], other["x"][:, :8, :6])
        assert one["pace"] == other["pace"]


def test_the_sizes_of_splits_change_no_example() -> None:
    small, large = WavesDataset(train_size=5, val_size=1), WavesDataset()
    assert (small.size("train"), small.size("val"), large.size("test")) == (5, 1, 2000)
    assert torch.equal(small.example("train", 4, None)["x"], large.example("train", 4, None)["x"])


@pytest.mark.long
@pytest.mark.parametrize("levels", [2, 3, 8, 256, None])
def test_the_variance(levels: int | None) -> None:
    dataset = WavesDataset(axes=(12, 12), levels=levels)
    x = dataset.spec.scale(torch.stack([row["x"] for row in examples(dataset, 1500)]))
    assert dataset.spec.variance == variance(levels)
    assert x.var().item() == pytest.approx(variance(levels), rel=0.04)


def test_paces_are_evenly_spread() -> None:
    counts = torch.stack([row["pace"] for row in examples(WavesDataset(axes=(1,)), 900)]).bincount(minlength=3)
    assert counts.min() > 250


def test_there_is_no_example_past_the_end() -> None:
    with pytest.raises(IndexError, match="test has 3 examples, no example 3"):
        WavesDataset(test_size=3).example("test", 3, None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"axes": ()}, r"axes=\[\]: "),
        ({"axes": (4, 0)}, r"axes=\[4, 0\]"),
        ({"channels": 0}, "channels=0: .*1"),
        ({"levels": 1}, "levels=1: .*2.*null"),
        ({"val_size": 0}, "val_size=0: "),
    ],
    ids=str,
)
def test_options_that_make_no_sense(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        WavesDataset(**options)


LEVELS, REAL = DataSpec(1, (2, 3), levels=8), DataSpec(1, (2, 3))


@pytest.mark.parametrize(
    ("array", "spec", "said"),
    [
        (np.zeros((2, 3), int), LEVELS, r"\(2, 3\).*\(1, 2, 3\)"),
        (np.zeros((1, 2, 3)), LEVELS, "float64.*integers"),
        (np.full((1, 2, 3), 8), LEVELS, "8 to 8.*0 to 7"),
        (np.full((1, 2, 3), -1), LEVELS, "-1 to -1"),
        (np.zeros((1, 2, 3), int), REAL, "int64.*float32"),
        (np.full((1, 2, 3), 1.5), REAL, r"\[-1, 1\]"),
        (np.full((1, 2, 3), np.nan), REAL, r"\[-1, 1\]"),
        (np.array([["a"]]), LEVELS, "array"),
    ],
    ids=lambda value: "" if isinstance(value, np.ndarray | DataSpec) else value,
)
def test_arrays_that_do_not_fit_are_refused(array: np.ndarray, spec: DataSpec, said: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ValueError, match=said):
        WavesDataset.read(tmp_path / "x.npy", spec)


def test_other_numbers_of_the_same_kind_are_read(tmp_path: Path) -> None:
    for spec, dtype, expected in [(LEVELS, np.uint8, torch.int64), (REAL, np.float16, torch.float32)]:
        np.save(tmp_path / "x.npy", np.ones((1, 2, 3), dtype))
        x = WavesDataset.read(tmp_path / "x.npy", spec)
        assert (x.dtype, x.shape, bool((x == 1).all())) == (expected, (1, 2, 3), True)


def test_damaged_files_are_a_sentence(tmp_path: Path) -> None:
    """Cut short anywhere, or with any byte of the header another: a ValueError, or an example after all."""
    path = tmp_path / "x.npy"
    WavesDataset.write(torch.zeros(1, 2, 3, dtype=torch.int64), LEVELS, path)
    whole = path.read_bytes()
    broken = [whole[:length] for length in range(len(whole))]
    broken += [whole[:i] + bytes([byte]) + whole[i + 1 :] for i in range(70) for byte in (0, 40, 0xFF)]
    refused = 0
    for content in [*broken, b"PK\x03\x04", b"\x80\x04N.", b"{}"]:
        path.write_bytes(content)
        try:
            with warnings.catch_warnings(action="ignore"):
                x = WavesDataset.read(path, LEVELS)
        except ValueError:
            refused += 1
        else:
            assert x.shape == (1, 2, 3)
    assert refused > 0.9 * len(broken)


def test_a_header_that_promises_too_much_costs_no_memory(tmp_path: Path) -> None:
    spec = DataSpec(1, (1 << 20, 1 << 20), levels=8)
    with (tmp_path / "x.npy").open("wb") as file:
        header = {"descr": "<i8", "fortran_order": False, "shape": spec.shape}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(ValueError, match=r"\.npy"):
        WavesDataset.read(tmp_path / "x.npy", spec)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[[{}] * 3] * 2], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"\.npy"):
        WavesDataset.read(tmp_path / "x.npy", LEVELS)


def test_a_sheet_shows_every_position_in_its_place(tmp_path: Path) -> None:
    """Two examples of two channels and three steps: enlarged by a whole factor, channels under one another."""
    rows = [np.random.default_rng(0).uniform(-1, 1, (2, 2, 3, 4, 6)), np.zeros((1, 2, 3, 4, 6))]
    plot_sheet(tmp_path / "sheet.png", rows)
    sheet = imread(tmp_path / "sheet.png")[..., 0]
    factor = LEGIBLE // 6
    across, down = 6 * factor + NARROW, 4 * factor + NARROW
    for example, channel, step in np.ndindex(2, 2, 3):
        left, top = WIDE + example * (3 * across - NARROW + WIDE) + step * across, WIDE + channel * down
        shown = sheet[top : top + 4 * factor : factor, left : left + 6 * factor : factor]
        np.testing.assert_allclose(2 * shown - 1, rows[0][example, channel, step], atol=0.02)
    assert sheet[-20, -20] == 1  # no example: paper


def test_a_sheet_of_curves_has_a_color_for_each_channel(tmp_path: Path) -> None:
    plot_sheet(tmp_path / "sheet.png", [np.zeros((3, 2, 10)), np.full((1, 2, 10), 0.5)])
    picture = imread(tmp_path / "sheet.png")[..., :3]
    assert picture.shape[:2] == (2 * CURVE[1], 3 * CURVE[0])
    above, below = picture[: CURVE[1]], picture[CURVE[1] :]
    assert (above[20:28].min(-1) < 0.9).any(0).mean() > 0.85, "curves run all across"
    assert (below[:, CURVE[0] + 4 :] == 1).all(), "no second example: paper"
    assert (below[8:18, : CURVE[0]].min(-1) < 0.9).any(), "half way up"
