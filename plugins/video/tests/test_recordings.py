"""Datasets of files: windows, splits, labels, actions, and what is remembered of the files."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from made_clips import numbered, numbers, save

from toolkit import Dataset, ToolkitError
from toolkit.datasets.files import folder_split, set_aside
from toolkit.testing.dataset import DatasetSuite
from toolkit_video import corpus, folder, timelines
from toolkit_video.actions import ActionsDataset
from toolkit_video.classes import class_of
from toolkit_video.folder import FolderDataset

SMALL = {"frames": 8, "size": 32}
"""Of windows."""


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Three classes with names that no grammar likes, three videos each, all different, of 20 to 28 frames."""
    root = tmp_path / "영상 [a], b=c (d)'s"
    for i, name in enumerate(("달리기 [1], x=y", "jump", "walk")):
        for j in range(3):
            save(root / name / f"{name[:4]}_{j}.mp4", numbered(20 + 4 * j, 64, first=80 * i + 25 * j))
    return root


@pytest.fixture
def plays(tmp_path: Path) -> Path:
    """Four recordings of 24 frames, whose i-th frame is led to by the action ``i % 3``."""
    root = tmp_path / "plays"
    for j in range(4):
        save(root / f"{j}.mp4", numbered(24, 64, first=50 * j))
        names = ["left", "right", "stay"]
        (root / f"{j}.csv").write_text("action\n" + "".join(f"{names[i % 3]}\n" for i in range(24)))
    return root


def with_numbers(root: Path) -> Path:
    for path in root.glob("*.csv"):
        rows = [f"{i},{-i / 10:.1f},{int(path.stem)}" for i in range(24)]
        path.write_text("x, y, which\n" + "\n".join(rows) + "\n")
    return root


class TestFolderDataset(DatasetSuite):
    lossless = False
    channels: ClassVar[int] = 3

    @pytest.fixture(autouse=True)
    def _files(self, videos: Path) -> None:
        self.root = videos

    def make(self) -> Dataset:
        return FolderDataset(root=str(self.root), frames=8, size=32, channels=self.channels, crop="random")


@pytest.mark.slow
class TestFolderDatasetOfGrey(TestFolderDataset):
    channels = 1


class TestFolderDatasetByName(TestFolderDataset):
    def make(self) -> Dataset:
        return FolderDataset(root=str(self.root), frames=6, size=48, rate=5, labels="file", start="fixed")


class TestActionsDataset(DatasetSuite):
    lossless = False
    actions: Literal["names", "numbers"] = "names"

    @pytest.fixture(autouse=True)
    def _files(self, plays: Path) -> None:
        self.root = plays

    def make(self) -> Dataset:
        return ActionsDataset(root=str(self.root), actions=self.actions, frames=8, size=32, lag=1)


class TestActionsDatasetOfNumbers(TestActionsDataset):
    actions = "numbers"

    @pytest.fixture(autouse=True)
    def _numbers(self, plays: Path) -> None:
        with_numbers(plays)


def test_windows_cover_every_file(videos: Path) -> None:
    dataset = FolderDataset(root=str(videos), **SMALL)
    seen: dict[str, set[int]] = {}
    names: list[str] = []
    for split in ("train", "val", "test"):
        for index in range(dataset.size(split)):
            window = dataset.corpus.window(split, index, None)
            names.append(dataset.example_name(split, index))
            assert names[-1] == window.path or names[-1].startswith(f"{window.path.removesuffix('.mp4')}@")
            assert np.diff(window.numbers).tolist() == [1] * 7
            seen.setdefault(window.path, set()).update(window.numbers.tolist())
            first = numbers(window.x)[0]
            assert numbers(window.x) == list(range(first, first + 8))
    assert len({*names}) == len(names)
    assert {path: len(frames) for path, frames in seen.items()} == {
        path: len(timeline.ticks) for path, timeline in dataset.corpus.timelines.items()
    }


def test_training_windows_lie_anywhere(videos: Path) -> None:
    drawn: dict[str, set[int]] = {"random": set(), "fixed": set()}
    for start in ("random", "fixed"):
        dataset = FolderDataset(root=str(videos), **SMALL, start=start)
        for seed in range(60):
            window = dataset.corpus.window("train", 0, torch.Generator().manual_seed(seed))
            drawn[start].add(int(window.numbers[0]))
            assert window.path == dataset.corpus.splits["train"][0]
    last = len(dataset.corpus.shown[dataset.corpus.splits["train"][0]]) - 8
    assert drawn == {"random": set(range(last + 1)), "fixed": {0}}


def test_crops_lie_anywhere_in_the_picture(tmp_path: Path) -> None:
    videos = tmp_path / "wide"
    for i in range(3):
        save(videos / f"{i}.mp4", numbered(8))
    dataset = FolderDataset(root=str(videos), frames=8, size=48, start="fixed", crop="random")
    middle = FolderDataset(root=str(videos), frames=8, size=48, start="fixed")
    crops = [dataset.example("train", 0, torch.Generator().manual_seed(seed))["x"] for seed in range(8)]
    assert len({crop.numpy().tobytes() for crop in crops}) > 4
    plain = middle.example("train", 0, None)["x"]
    assert (middle.example("train", 0, torch.Generator())["x"] == plain).all()
    assert (dataset.example("train", 0, None)["x"] == plain).all()


@pytest.mark.long
@pytest.mark.parametrize("memory", [0, 2])
def test_frames_come_out_of_memory_as_out_of_the_file(
    memory: int, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    decode = corpus.read_frames
    monkeypatch.setattr(corpus, "read_frames", lambda *words: (read.append(len(words[2])), decode(*words))[1])
    plain = FolderDataset(root=str(videos), frames=8, size=48, crop="random", memory=0)
    dataset = FolderDataset(root=str(videos), frames=8, size=48, crop="random", memory=memory)
    for seed in range(8):
        for index in range(dataset.size("train")):
            draw = [torch.Generator().manual_seed(seed) for _ in range(2)]
            expected = plain.example("train", index, draw[0])
            assert (dataset.example("train", index, draw[1])["x"] == expected["x"]).all()
    for index in range(dataset.size("train")):
        dataset.example("train", index, None)
    began = len(read)
    for index in range(dataset.size("train")):
        dataset.example("train", index, None)
    assert len(read) - began == (0 if memory else dataset.size("train"))


@pytest.mark.long
def test_no_more_is_kept_than_there_is_room_for(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = FolderDataset(root=str(videos), frames=8, size=48)
    frame = 48 * 48 * 3
    dataset.corpus.kept, dataset.corpus.room = {}, 20 * frame
    for seed in range(20):
        for index in range(dataset.size("train")):
            dataset.example("train", index, torch.Generator().manual_seed(seed))
    kept = [each for frames in dataset.corpus.kept.values() for each in frames.values()]
    assert 16 <= len(kept) <= 20
    assert all(each.base is None and each.nbytes == frame for each in kept)
    assert dataset.corpus.room == (20 - len(kept)) * frame


def test_frames_are_those_of_the_rate(videos: Path) -> None:
    dataset = FolderDataset(root=str(videos), frames=5, size=48, rate=2.5)
    assert dataset.spec.rates == (2.5, None, None)
    window = dataset.corpus.window("train", 0, None)
    assert np.diff(window.numbers).tolist() == [4] * 4


def test_without_a_rate_it_is_that_of_the_files(videos: Path) -> None:
    assert FolderDataset(root=str(videos), **SMALL).spec.rates == (10.0, None, None)
    save(videos / "jump" / "fast.mp4", numbered(40), 25)
    with pytest.raises(ToolkitError, match=r"has 10 frames per second and jump/fast.mp4 25; dataset.rate=NUMBER"):
        FolderDataset(root=str(videos), **SMALL)
    assert FolderDataset(root=str(videos), **SMALL, rate=10).spec.rates == (10.0, None, None)


def test_classes_are_folders_or_names(videos: Path) -> None:
    names = ("jump", "walk", "달리기 [1], x=y")
    dataset = FolderDataset(root=str(videos), **SMALL)
    (condition,) = dataset.spec.conditions
    assert (condition.name, condition.labels) == ("class", names)
    for index in range(dataset.size("train")):
        path = dataset.corpus.window("train", index, None).path
        assert names[int(dataset.example("train", index, None)["class"])] == path.split("/")[0]
    by_name = FolderDataset(root=str(videos), **SMALL, labels="file")
    assert by_name.spec.conditions[0].labels == ("jump", "walk", "달리기")
    assert not FolderDataset(root=str(videos), **SMALL, labels="none").spec.conditions


@pytest.mark.parametrize(
    ("path", "by_folder", "by_file"),
    [
        ("walk/a.mp4", "walk", "a"),
        ("train/walk/deep/a_01.mp4", "walk", "a"),
        ("train/walk_12.mp4", "", "walk"),
        ("again.mkv", "", "again"),
        ("0001.mp4", "", "0001"),
        ("walk/run - 3.mp4", "walk", "run"),
    ],
)
def test_a_class_is_read_off_the_path(path: str, by_folder: str, by_file: str) -> None:
    assert (class_of(path, "folder"), class_of(path, "file"), class_of(path, "none")) == (by_folder, by_file, "")


def test_splits_by_folder(videos: Path, tmp_path: Path) -> None:
    root = tmp_path / "split"
    for split, name in (("train", "jump"), ("val", "walk"), ("test", "달리기 [1], x=y")):
        shutil.copytree(videos / name, root / split / name)
    dataset = FolderDataset(root=str(root), **SMALL)
    assert {split: {path.split("/")[0] for path in paths} for split, paths in dataset.corpus.splits.items()} == {
        split: {split} for split in ("train", "val", "test")
    }
    assert dataset.spec.conditions[0].labels == ("jump", "walk", "달리기 [1], x=y")
    shutil.rmtree(root / "train")
    with pytest.raises(ToolkitError, match="there is val and test but no train"):
        FolderDataset(root=str(root), **SMALL)


def test_splits_by_hash_are_stable_and_of_their_sizes() -> None:
    paths = [f"{i}/{i * i}.mp4" for i in range(4000)]
    whole, part = (set_aside(some, folder_split, str) for some in (paths, paths[:2000]))
    assert sorted(path for split in whole.values() for path in split) == sorted(paths)
    assert 140 < len(whole["val"]) < 260
    assert 140 < len(whole["test"]) < 260
    for split in ("train", "val", "test"):
        assert set(part[split]) == set(whole[split]) & set(paths[:2000])
    few = set_aside(["a.mp4", "b.mp4", "c.mp4"], folder_split, str)
    assert {split: len(paths) for split, paths in few.items()} == {"train": 1, "val": 1, "test": 1}


def test_files_are_looked_at_once(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Path] = []
    look = timelines.read_timeline
    monkeypatch.setattr(timelines, "read_timeline", lambda path: (looked.append(path), look(path))[1])
    first = FolderDataset(root=str(videos), **SMALL)
    assert len(looked) == 9
    again = FolderDataset(root=str(videos), **SMALL)
    assert len(looked) == 9
    assert again.spec == first.spec
    for path, timeline in first.corpus.timelines.items():
        known = again.corpus.timelines[path]
        assert (known.base, known.rate, known.counted) == (timeline.base, timeline.rate, timeline.counted)
        assert (known.ticks == timeline.ticks).all()
        assert (known.keys == timeline.keys).all()
    save(videos / "walk" / "walk_1.mp4", numbered(30))
    changed = FolderDataset(root=str(videos), **SMALL)
    assert looked[9:] == [videos / "walk" / "walk_1.mp4"]
    assert len(changed.corpus.timelines["walk/walk_1.mp4"].ticks) == 30


@pytest.mark.long
def test_a_damaged_memory_is_forgotten(videos: Path) -> None:
    first = FolderDataset(root=str(videos), **SMALL)
    for damage in ('{"walk/walk_1.mp4": 3}', '{"walk/walk_1.mp4": [[1, 2], [3]]}', "[", "[]"):
        (memory,) = Path(os.environ["XDG_CACHE_HOME"]).glob("*/*.json")
        memory.write_text(damage)
        assert FolderDataset(root=str(videos), **SMALL).spec == first.spec


def test_the_variance_is_that_of_the_scaled_windows(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "SAMPLE", 1000)
    dataset = FolderDataset(root=str(videos), **SMALL)
    x = torch.stack([dataset.example("train", i, None)["x"] for i in range(dataset.size("train"))])
    assert dataset.spec.variance == pytest.approx(float((x.double() / 127.5 - 1).var(correction=0)), rel=1e-5)


def test_counts_are_told(videos: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        FolderDataset(root=str(videos), **SMALL)
    assert "0.4 minutes at 10 frames per second; videos: 7 train, 1 val, 1 test" in caplog.text


def actions_of(dataset: ActionsDataset) -> list[tuple[list[int], torch.Tensor]]:
    """Of every window the frames' numbers in their file, and the actions."""
    made = []
    for split in ("train", "val", "test"):
        for index in range(dataset.size(split)):
            example = dataset.example(split, index, None)
            made.append(([number % 50 for number in numbers(example["x"])], example["action"]))
    return made


@pytest.mark.parametrize("lag", [0, 1, 2])
def test_actions_belong_to_the_frames_that_they_lead_to(lag: int, plays: Path) -> None:
    dataset = ActionsDataset(root=str(plays), **SMALL, lag=lag)
    (condition,) = dataset.spec.conditions
    assert condition.labels == ("left", "right", "stay")
    assert condition.per_step
    for frames, actions in actions_of(dataset):
        assert actions.tolist() == [(frame - lag) % 3 if frame >= lag else 3 for frame in frames]


@pytest.mark.parametrize("lag", [0, 1])
def test_actions_in_numbers(lag: int, plays: Path) -> None:
    dataset = ActionsDataset(root=str(with_numbers(plays)), **SMALL, actions="numbers", lag=lag)
    (condition,) = dataset.spec.conditions
    assert (condition.size, condition.real, condition.per_step) == (3, True, True)
    for frames, actions in actions_of(dataset):
        assert actions.dtype == torch.float32
        for frame, (x, y, _) in zip(frames, actions.tolist(), strict=True):
            assert (x, y) == pytest.approx((frame - lag, -(frame - lag) / 10) if frame >= lag else (0, 0))


def test_actions_go_with_the_frames_of_another_rate(plays: Path) -> None:
    dataset = ActionsDataset(root=str(with_numbers(plays)), frames=6, size=32, rate=2.5, actions="numbers")
    for frames, actions in actions_of(dataset):
        assert actions[:, 0].tolist() == frames
        assert np.diff(frames).tolist() == [4] * 5


def test_the_last_frame_needs_no_action_where_none_follows(plays: Path) -> None:
    for path in plays.glob("*.csv"):
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    dataset = ActionsDataset(root=str(plays), **SMALL, lag=1)
    for frames, actions in actions_of(dataset):
        assert actions.tolist() == [(frame - 1) % 3 if frame else 3 for frame in frames]


def test_a_list_of_names_says_their_order_and_which_there_are(plays: Path) -> None:
    (plays / "actions.txt").write_text("jump\nstay\nright\nleft\n")
    dataset = ActionsDataset(root=str(plays), **SMALL)
    assert dataset.spec.conditions[0].labels == ("jump", "stay", "right", "left")
    for frames, actions in actions_of(dataset):
        assert actions.tolist() == [(3, 2, 1)[frame % 3] for frame in frames]


@pytest.mark.parametrize("kind", ["names", "text", "numbers", "column"])
def test_actions_in_arrays(kind: str, plays: Path) -> None:
    for path in plays.glob("*.csv"):
        path.unlink()
        rows = np.arange(24)
        made = {
            "names": rows % 12,
            "text": np.array([f"act {i % 3}" for i in rows]),
            "numbers": np.stack([rows, -rows], 1) / 2,
            "column": rows / 2,
        }[kind]
        np.save(path.with_suffix(".npy"), made)
    actions: Literal["names", "numbers"] = "names" if kind in ("names", "text") else "numbers"
    dataset = ActionsDataset(root=str(plays), **SMALL, actions=actions)
    (condition,) = dataset.spec.conditions
    if kind == "names":
        assert condition.labels == tuple(map(str, range(12)))  # 2 before 10
    assert condition.size == {"names": 12, "text": 3, "numbers": 2, "column": 1}[kind]
    for frames, found in actions_of(dataset):
        first = found if actions == "names" else found[:, 0]
        expected = [frame % condition.size if actions == "names" else frame / 2 for frame in frames]
        assert first.tolist() == expected
