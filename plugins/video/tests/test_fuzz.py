"""Folders of clips and of actions, damaged at random, under every command that reads them."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from fuzz_data import SHORT, Data, ends
from made_clips import numbered, save
from PIL import Image

from toolkit.__main__ import run

pytestmark = pytest.mark.long

PARTS = [
    *("encoder=video_conv", "quantizer=vq", "decoder=video_conv", "likelihood=normal", "stage=autoencoder", "dim=4"),
    *("encoder.hidden=4", "decoder.hidden=4", "quantizer.codebook_size=8", "metric=[codebook]"),
    *("dataset.frames=4", "dataset.size=16"),
]
CLIPS = ["dataset=video_folder", *PARTS]
PLAYS = ["dataset=video_actions", *PARTS]


def gif(path: Path, frames: np.ndarray) -> None:
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Data:
    home = tmp_path_factory.mktemp("clips")
    for i, label in enumerate(("run", "walk")):
        for j, suffix in enumerate(("mp4", "mkv", "mov", "ts")):
            save(home / "data" / label / f"{j}.{suffix}", numbered(12, first=40 * i + 10 * j))
        gif(home / "data" / label / "g.gif", numbered(12))
        save(home / "data" / label / "old.avi", numbered(12), codec="mpeg4")
    assert run(["train", *CLIPS, *SHORT, f"dataset.root={home / 'data'}", f"hydra.run.dir={home / 'run'}"]) == 0
    return Data(home, CLIPS)


@pytest.fixture(scope="module")
def plays(tmp_path_factory: pytest.TempPathFactory) -> Data:
    home = tmp_path_factory.mktemp("plays")
    for i in range(4):
        save(home / "data" / f"{i}.mp4", numbered(12, first=20 * i))
    for i in (0, 1):
        (home / "data" / f"{i}.csv").write_text("left\nright\n" * 6)
        (home / "data" / f"{i + 2}.txt").write_text("left\n" * 12)
    (home / "data" / "actions.txt").write_text("left\nright\n")
    assert run(["train", *PLAYS, *SHORT, f"dataset.root={home / 'data'}", f"hydra.run.dir={home / 'run'}"]) == 0
    return Data(home, PLAYS)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Actions that are numbers."""
    home = tmp_path_factory.mktemp("measured")
    for i in range(4):
        save(home / "data" / f"{i}.mp4", numbered(12, first=20 * i))
        actions = np.random.default_rng(i).normal(size=(12, 2)).astype([np.float32, np.float64][i % 2])
        if i:
            np.save(home / "data" / f"{i}.npy", actions)
        else:
            np.savetxt(home / "data" / f"{i}.csv", actions, delimiter=",")
    words = [*PLAYS, "dataset.actions=numbers"]
    assert run(["train", *words, *SHORT, f"dataset.root={home / 'data'}", f"hydra.run.dir={home / 'run'}"]) == 0
    return Data(home, words)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    av.logging.set_level(None)


@pytest.mark.parametrize("numbers", [range(2), pytest.param(range(2, 84), marks=pytest.mark.slow)], ids=["2", "82"])
def test_any_clips(clips: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str], numbers: range) -> None:
    ends(clips, numbers, tmp_path, capsys)


@pytest.mark.parametrize("numbers", [range(1), pytest.param(range(1, 43), marks=pytest.mark.slow)], ids=["1", "42"])
def test_any_names_of_actions(plays: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str], numbers: range) -> None:
    ends(plays, numbers, tmp_path, capsys)


@pytest.mark.parametrize("numbers", [range(1), pytest.param(range(1, 43), marks=pytest.mark.slow)], ids=["1", "42"])
def test_any_measured_actions(
    measured: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str], numbers: range
) -> None:
    ends(measured, numbers, tmp_path, capsys)
