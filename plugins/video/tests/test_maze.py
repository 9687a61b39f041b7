"""Walks through a maze, recorded for ``video_actions``."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch

import toolkit
from toolkit import ToolkitError
from toolkit.__main__ import run
from toolkit_video import maze
from toolkit_video.actions import ActionsDataset
from toolkit_video.reading import read_frames, read_timeline

FEW = ("steps=2", "batch_size=2", "workers=0", "validate_examples=2", "precision=fp32")
needs_vizdoom = pytest.mark.skipif(find_spec("vizdoom") is None, reason="vizdoom is not installed")


def test_actions_are_kept_for_a_while() -> None:
    """As often as it is said, and drawn as it is said: a run has a mean length, a name its share."""
    names = maze.sticky(np.random.default_rng(0), 40_000)
    for name, chance in zip(maze.ACTIONS, maze.CHANCES, strict=True):
        assert names.count(name) / len(names) == pytest.approx(chance, abs=0.02)
    runs = [len(list(run)) for _, run in groupby(names)]
    changed = (1 - maze.KEPT) * (1 - sum(chance**2 for chance in maze.CHANCES))
    assert np.mean(runs) == pytest.approx(1 / changed, rel=0.05)


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ToolkitError, match="exists already"):
        maze.record(tmp_path, 1, 1, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    with pytest.raises(ToolkitError, match=r"pip install 'discrete-toolkit-video\[vizdoom\]'"):
        maze.record(tmp_path / "walks", 1, 1, 0)
    assert not (tmp_path / "walks").exists()


def test_what_is_recorded_is_read_back(tmp_path: Path) -> None:
    seen = np.random.default_rng(0).integers(0, 256, (40, 84, 84, 3), dtype=np.uint8)
    maze._save(tmp_path / "a.mp4", seen)
    assert (frames(tmp_path / "a.mp4") == seen).all()
    assert read_timeline(tmp_path / "a.mp4").rate == 8.75


@needs_vizdoom
@pytest.mark.slow
def test_walks_are_recorded(tmp_path: Path) -> None:
    """Twenty of them, each its seed's; what a walker sees turns to where it turns."""
    words = [sys.executable, "-m", "toolkit_video.maze", "walks", "--sequences", "20", "--frames", "24", "--seed", "3"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["walks"]
    root = tmp_path / "walks"
    assert len(list(root.iterdir())) == 41
    maze.record(tmp_path / "again", 2, 24, 3)
    maze.record(tmp_path / "other", 1, 24, 4)
    for name in ("00000", "00001"):
        assert (root / f"{name}.csv").read_text() == (tmp_path / "again" / f"{name}.csv").read_text()
        assert (frames(root / f"{name}.mp4") == frames(tmp_path / "again" / f"{name}.mp4")).all()
    assert (frames(root / "00000.mp4") != frames(tmp_path / "other" / "00000.mp4")).mean() > 0.5
    dataset = ActionsDataset(root=str(root), frames=16, size=84)
    assert dataset.spec.shape == (3, 16, 84, 84)
    assert dataset.spec.rates[0] == 8.75
    assert dataset.spec.conditions[0].labels == ("forward", "left", "right")
    assert sum(dataset.size(split) for split in ("train", "val", "test")) == 40
    follows(dataset)


@needs_vizdoom
@pytest.mark.slow
def test_its_experiments_train_and_roll_out_at_real_shapes(tmp_path: Path) -> None:
    """A few steps of each over recorded walks: frames, three codes for a frame, and futures that are told actions."""
    walks = tmp_path / "walks"
    maze.record(walks, 20, 24, 0)
    few = [f"{each}.{key}" for each in ("trainer", "prior_trainer") for key in FEW]
    few += ["prior_trainer.allow_collapsed=true"]
    frames = tmp_path / "frames"
    words = [f"dataset.root={walks}", *few]
    assert run(["train", "experiment=video_maze_frames", *words, f"hydra.run.dir={frames}"]) == 0
    second = tmp_path / "second"
    words = [f"dataset.run={frames}", *few]
    assert run(["train", "experiment=video_maze_second_stage", *words, f"hydra.run.dir={second}"]) == 0
    future = tmp_path / "future"
    words = [f"dataset.root={walks}", f"init={frames}", *few]
    assert run(["train", "experiment=video_maze_paper", *words, f"hydra.run.dir={future}"]) == 0
    assert toolkit.load(frames).code_spec.shape == (1, 1, 21, 21)
    assert toolkit.load(second).code_spec.shape == (3, 1, 1, 1)
    assert toolkit.load(future).code_spec.shape == (1, 16, 21, 21)
    for folder in (frames, second):
        assert run(["sample", f"run={folder}", "n=2"]) == 0
    clip = next(walks.glob("*.mp4"))
    words = [f"prefix.file={clip}", "prefix.frames=6", "frames=16", "n=2", "condition.action=forward,right"]
    assert run(["sample", f"run={future}", *words]) == 0
    for path in sorted((future / "samples").glob("*/sample-*.mp4")):
        assert len(read_timeline(path).ticks) == 16


def follows(dataset: ActionsDataset) -> None:
    """Where a walker turns to the right, what it sees moves to the left, and the other way round."""
    moved: dict[int, list[int]] = {1: [], 2: []}
    for index in range(dataset.size("train")):
        example = dataset.example("train", index, None)
        grey, actions = example["x"].float().mean(0), example["action"]
        for i in range(2, 16):
            # a walker goes on turning for a moment
            if actions[i] == actions[i - 1] == actions[i - 2] and int(actions[i]) in moved:
                moved[int(actions[i])].append(shift(grey[i - 1], grey[i]))
    assert len(moved[1]) > 20
    assert len(moved[2]) > 20
    assert np.mean(np.array(moved[1]) > 0) > 0.8
    assert np.mean(np.array(moved[2]) < 0) > 0.8


def shift(before: torch.Tensor, after: torch.Tensor) -> int:
    """By how many pixels to the right a picture has moved, as well as can be told."""
    reach = 24
    apart = {
        by: (before[:, reach - by : 84 - reach - by] - after[:, reach : 84 - reach]).abs().mean().item()
        for by in range(-reach, reach + 1)
    }
    return min(apart, key=apart.__getitem__)


def frames(path: Path) -> np.ndarray:
    timeline = read_timeline(path)
    return read_frames(path, timeline, range(len(timeline.ticks)), 3)
