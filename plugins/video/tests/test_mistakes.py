"""Wrong input as a person meets it: exit 2, one to three lines, no traceback, nothing half-written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from made_clips import colorful, numbered, save, sound_only

from toolkit import ToolkitError
from toolkit.__main__ import run
from toolkit_video.actions import ActionsDataset
from toolkit_video.folder import FolderDataset
from toolkit_video.reading import read_timeline

pytestmark = pytest.mark.long

MODEL = [
    "train",
    "encoder=video_conv",
    "quantizer=ema",
    "decoder=video_conv",
    "likelihood=normal",
    "prior=pixelcnn",
    "metric=[codebook]",
    "stage=autoencoder",
    "dim=4",
    "encoder.hidden=4",
    "decoder.hidden=4",
    "quantizer.codebook_size=8",
    "trainer.steps=2",
    "trainer.batch_size=4",
    "trainer.validate_examples=2",
    "dataset.frames=4",
    "dataset.size=16",
]
FOLDER = [*MODEL, "dataset=video_folder"]
ACTIONS = [*MODEL, "dataset=video_actions"]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must be refused; what it says."""

    def act(*words: object) -> str:
        capsys.readouterr()
        assert run([str(word) for word in words]) == 2
        said = capsys.readouterr().err
        lines = [line for line in said.splitlines() if not line.startswith("note: ")]
        assert 1 <= len(lines) <= 3
        assert "Traceback" not in said
        return said

    return act


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoded once, for all tests to copy."""
    folder = tmp_path_factory.mktemp("films")
    for i in range(6):
        save(folder / "videos" / f"walk {i % 2}" / f"{i}.mp4", numbered(12, first=20 * i))
    for i in range(5):
        save(folder / "plays" / f"{i}.mp4", numbered(12, 64, first=20 * i))
        (folder / "plays" / f"{i}.csv").write_text("left\nright\n" * 6)
    return folder


@pytest.fixture
def videos(films: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(films / "videos", tmp_path / "영상 [a], b=c"))


@pytest.fixture
def plays(films: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(films / "plays", tmp_path / "plays"))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("a letter, and no film\n" * 100)


def cut(path: Path) -> None:
    """Its index stands at the end, and is lost."""
    save(path, colorful(40))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_behind_its_index(path: Path) -> None:
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream: Any = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 96, 96, "yuv420p"
        for pixels in colorful(40):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_frames(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        container.start_encoding()


def short(path: Path) -> None:
    save(path, numbered(3))


def small(path: Path) -> None:
    save(path, np.zeros((12, 8, 40, 3), np.uint8))


DAMAGED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "an empty file": ("bad.mp4", empty, "the file is empty"),
    "text named mp4": ("bad.mp4", text, "cannot be read as video"),
    "a truncated mp4": ("torn.mp4", cut, "cannot be read as video"),
    "an mp4 that is truncated behind its index": ("torn.mp4", cut_behind_its_index, "cut short, "),
    "a clip of no length": ("bad.mkv", without_frames, "has no frames"),
    "an mp4 of no length": ("bad.mp4", without_frames, "has no video"),
    "fewer frames than the window": (
        "bad.mkv",
        short,
        "3 frames at 10 per second, fewer than a window (dataset.frames=4)",
    ),
    "sound without a film": ("bad.mp4", sound_only, "has no video"),
    "frames smaller than needed": (
        "small.mp4",
        small,
        "the frames are 40 x 8 (width x height), smaller than the required 16 x 16",
    ),
}


def read(dataset: FolderDataset | ActionsDataset) -> None:
    """Every example once."""
    for split in ("train", "val", "test"):
        for index in range(dataset.size(split)):
            assert dataset.example(split, index, None)["x"].shape == (3, 4, 16, 16)


def test_a_file_that_cannot_be_used_stops_the_run(told: Callable[..., str], videos: Path, tmp_path: Path) -> None:
    name, spoil, why = DAMAGED["text named mp4"]
    spoil(videos / "walk 1" / name)
    said = told(*FOLDER, f"dataset.root={videos}", f"hydra.run.dir={tmp_path / 'out'}", "trainer.steps=20")
    assert name in said
    assert why in said
    assert "dataset.on_error=skip" in said


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_file_that_cannot_be_used_is_named(damage: str, videos: Path) -> None:
    name, spoil, why = DAMAGED[damage]
    spoil(videos / "walk 1" / name)
    with pytest.raises(ToolkitError) as error:
        read(FolderDataset(root=str(videos), frames=4, size=16))
    assert name in str(error.value)
    assert why in str(error.value)
    assert "dataset.on_error=skip" in str(error.value)


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_file_that_cannot_be_used_is_skipped_counted_and_named(
    damage: str, videos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name, spoil, why = DAMAGED[damage]
    spoil(videos / "walk 1" / name)
    read(FolderDataset(root=str(videos), frames=4, size=16, on_error="skip"))
    assert f"{name}: {why}" in caplog.text
    assert caplog.text.count("1 files skipped so far") == 1


def test_a_run_goes_on_without_what_it_skips(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short(videos / "walk 1" / "short.mp4")
    small(videos / "walk 1" / "small.mp4")
    words = [*FOLDER, f"dataset.root={videos}", "dataset.on_error=skip", "trainer.steps=12"]
    assert run([*words, f"hydra.run.dir={tmp_path / 'out'}"]) == 0
    said = capsys.readouterr().err
    assert "short.mp4: 3 frames" in said
    assert "small.mp4: the frames are 40 x 8" in said
    assert "2 files skipped so far" in said


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    for i in range(3):
        save(root / "videos" / f"{i}.mp4", numbered(12, first=20 * i))
    assert run([*FOLDER, f"dataset.root={root / 'videos'}", f"hydra.run.dir={root / 'run'}"]) == 0
    return root / "run"


SHORT = "fewer frames than the window"


def test_a_film_shorter_than_a_window_comes_back_as_long(finished: Path, tmp_path: Path) -> None:
    name, spoil, _ = DAMAGED[SHORT]
    spoil(tmp_path / name)
    assert run(["reconstruct", f"run={finished}", str(tmp_path / name), f"out={tmp_path / 'out'}"]) == 0
    assert len(read_timeline(tmp_path / "out" / "reconstruction-0000.mp4").ticks) == 3


@pytest.mark.few(2)
@pytest.mark.parametrize("damage", [damage for damage in DAMAGED if damage != SHORT])
def test_files_that_cannot_be_reconstructed(
    damage: str, told: Callable[..., str], finished: Path, tmp_path: Path
) -> None:
    name, spoil, why = DAMAGED[damage]
    spoil(tmp_path / name)
    out = tmp_path / "nothing"
    said = told("reconstruct", f"run={finished}", tmp_path / name, f"out={out}")
    assert name in said
    assert why in said
    assert not out.exists()


def test_a_file_that_disappears_between_scan_and_read(videos: Path, caplog: pytest.LogCaptureFixture) -> None:
    for on_error in ("stop", "skip"):
        dataset = FolderDataset(root=str(videos), frames=4, size=16, memory=0, on_error=on_error)  # type: ignore[arg-type]
        path = dataset.corpus.window("train", 0, None).path
        content = (videos / path).read_bytes()
        (videos / path).unlink()
        if on_error == "stop":
            with pytest.raises(ToolkitError, match="the file does not exist") as caught:
                dataset.example("train", 0, None)
            assert path in str(caught.value)
        else:
            other = dataset.example("train", 0, None)
            assert dataset.corpus.policy.skipped == {path}
            assert (other["x"] == dataset.example("train", 0, None)["x"]).all()
            assert caplog.text.count("the file does not exist") == 1
        (videos / path).write_bytes(content)


def test_a_file_that_changes_between_scan_and_read(videos: Path) -> None:
    dataset = FolderDataset(root=str(videos), frames=4, size=16, start="fixed", memory=0)
    window = dataset.corpus.window("train", 2, None)
    save(videos / window.path, numbered(5))
    with pytest.raises(ToolkitError, match="cut short or changed, no frame at"):
        dataset.example("train", 2, None)


def test_a_split_of_which_nothing_can_be_read(videos: Path) -> None:
    dataset = FolderDataset(root=str(videos), frames=4, size=16, memory=0, on_error="skip")
    for path in dataset.corpus.splits["test"]:
        (videos / path).unlink()
    with pytest.raises(ToolkitError, match="no file of the test split can be read"):
        dataset.example("test", 0, None)


def test_telephones_films_are_no_mistakes(videos: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Upright ones, and such as dawdle."""
    ticks = [0, 100, 190, 330, 400, 500, 640, 700, 790, 900, 1010, 1100]
    for i, rotation in enumerate((90, 180, 270)):
        save(videos / "walk 0" / f"up {i}.mp4", numbered(12), rotation=rotation, ticks=ticks, base=Fraction(1, 1000))
    read(FolderDataset(root=str(videos), frames=4, size=16, rate=10))
    assert "skipped" not in caplog.text


def lines(path: Path, count: int) -> None:
    path.write_text("left\n" * count)


UNFIT: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "too few actions": (lambda root: lines(root / "3.csv", 11), "3.csv: 11 actions, but 3.mp4 has 12 frames", ""),
    "too many actions": (lambda root: lines(root / "3.csv", 13), "3.csv: 13 actions, but 3.mp4 has 12 frames", ""),
    "no actions": (
        lambda root: (root / "3.csv").unlink(),
        "3.mp4: no actions beside it, no 3.csv or .txt",
        "",
    ),
    "a file of nothing": (lambda root: (root / "3.csv").write_text(""), "3.csv: 0 actions, but 3.mp4 has 12", ""),
    "an unknown name": (
        lambda root: (root / "actions.txt").write_text("left\nrite\n"),
        "no action right (number 2), did you mean rite? (actions.txt: left, rite)",
        "",
    ),
    "a name twice": (
        lambda root: (root / "actions.txt").write_text("left\nright\nleft\n"),
        "actions.txt: must name every action once",
        "",
    ),
    "bytes": (lambda root: (root / "3.csv").write_bytes(b"\xff\xfe\x00"), "3.csv: cannot be read as text", ""),
    "words for numbers": (lambda root: None, "0.csv: action 1 is right, not numbers", "numbers"),
    "rows of another width": (
        lambda root: [(root / f"{i}.csv").write_text("1,2\n" * 12 if i == 3 else "1\n" * 12) for i in range(5)],
        "3.csv: 2 numbers for each frame, other videos have 1",
        "numbers",
    ),
    "ragged rows": (
        lambda root: [(root / f"{i}.csv").write_text("1,2\n" * 11 + "1\n") for i in range(5)],
        "0.csv: action 12 has 1 numbers, the first 2",
        "numbers",
    ),
    "no number": (
        lambda root: [(root / f"{i}.csv").write_text("1,2\n" * 11 + "1,nan\n") for i in range(5)],
        "0.csv: action 12 is 1,nan, not numbers",
        "numbers",
    ),
    "an array of pickles": (
        lambda root: [(root / "3.csv").unlink(), np.save(root / "3.npy", np.array([{}] * 12), allow_pickle=True)],
        "3.npy: cannot be read as an array",
        "",
    ),
    "an array of another shape": (
        lambda root: [(root / "3.csv").unlink(), np.save(root / "3.npy", np.zeros((12, 2), int))],
        "3.npy: int64 of shape (12, 2); names are one whole number or text per frame",
        "",
    ),
}


def test_actions_that_do_not_fit_stop_the_run(told: Callable[..., str], plays: Path, tmp_path: Path) -> None:
    spoil, why, _ = UNFIT["an unknown name"]
    spoil(plays)
    assert why in told(*ACTIONS, f"dataset.root={plays}", f"hydra.run.dir={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mistake", UNFIT)
def test_actions_that_do_not_fit(mistake: str, plays: Path) -> None:
    spoil, why, kind = UNFIT[mistake]
    spoil(plays)
    with pytest.raises(ToolkitError) as error:
        read(ActionsDataset(root=str(plays), frames=4, size=16, actions=kind or "names"))  # type: ignore[arg-type]
    assert why in str(error.value)
    assert len(str(error.value).splitlines()) <= 3


def test_recordings_whose_actions_do_not_fit_are_skipped(plays: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines(plays / "3.csv", 11)
    (plays / "2.csv").unlink()
    (plays / "1.csv").write_text("left\nright\nfly\n" * 4)
    (plays / "actions.txt").write_text("left\nright\n")
    dataset = ActionsDataset(root=str(plays), frames=4, size=16, on_error="skip")
    assert {path for paths in dataset.corpus.splits.values() for path in paths} == {"0.mp4", "4.mp4"}
    assert "3 files skipped so far" in caplog.text


@pytest.mark.slow
def test_an_action_that_a_run_does_not_know(told: Callable[..., str], plays: Path, tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    words = ["stage=all", "conditions.prior=[action]", "prior.hidden=4", "prior.layers=1", "prior_trainer.steps=2"]
    words += ["prior_trainer.batch_size=2", "prior_trainer.allow_collapsed=true", f"hydra.run.dir={run_folder}"]
    assert run([*ACTIONS, f"dataset.root={plays}", *words]) == 0
    said = told("sample", f"run={run_folder}", "n=1", "condition.action=lift")
    assert "condition.action=lift: no such label, did you mean left?" in said


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["dataset.frames=0"], "dataset.frames=0: must be at least 1"),
        (["dataset.rate=0"], "dataset.rate=0.0: must be above 0"),
        (["dataset.size=0"], "dataset.size=0: must be at least 1"),
        (["dataset.channels=2"], "3 for color or 1 for gray"),
        (["dataset.crop=middle"], "center"),
        (["dataset.root=nowhere"], "no such folder"),
    ],
)
def test_options_that_do_not_fit(
    words: list[str], why: str, told: Callable[..., str], videos: Path, tmp_path: Path
) -> None:
    base = [word for word in FOLDER if word.partition("=")[0] not in {each.partition("=")[0] for each in words}]
    said = told(*base, f"dataset.root={videos}", f"hydra.run.dir={tmp_path / 'out'}", *words)
    assert why in said
    assert not (tmp_path / "out").exists()


def test_a_folder_without_videos(told: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    assert "no video files (.mp4, " in told(*FOLDER, f"dataset.root={tmp_path / 'none'}")


@pytest.mark.slow
def test_the_datasets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "dataset", "--check", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)["components"]}
    assert not listed["video_folder"]["problem"]
    assert not listed["video_actions"]["problem"]
