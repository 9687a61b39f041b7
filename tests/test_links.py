"""Files are written aside and renamed: never through a link, whichever stands in their place."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from toolkit.__main__ import run as command
from toolkit.report import LogFile, Silence
from toolkit.runs.log import Log
from toolkit.writing import append_text, replacing, write_into, write_text

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("toys")]


@pytest.fixture
def run(toy_run: Path, tmp_path: Path) -> Path:
    """A copy of a run, with links in the place of what the commands write: in it, and to a file outside."""
    copy = tmp_path / "run"
    shutil.copytree(toy_run, copy)
    shutil.rmtree(copy / "samples", ignore_errors=True)
    (copy / "samples").mkdir()
    return copy


def victims(run: Path, names: list[str]) -> dict[Path, bytes]:
    """Plants a symbolic link for the first of the names and hard links for the others; returns what must not change."""
    outside = run.parent / "outside.txt"
    outside.write_text("mine")
    for i, name in enumerate(names):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).unlink(missing_ok=True)
        if i:
            os.link(outside, run / name)
        else:
            (run / name).symlink_to(run / "config.yaml")
    return {path: path.read_bytes() for path in (outside, run / "config.yaml")}


@pytest.mark.parametrize("flip", [False, True])
def test_no_command_writes_through_a_link(run: Path, flip: bool) -> None:
    draw = "samples/pixelcnn-seed0"
    names = [f"{draw}/samples.png", f"{draw}/sample-0000.json", f"{draw}/samples.safetensors", "evaluation.json"]
    names += ["samples/reconstructions.png", "samples/codebook.png"]
    before = victims(run, names[::-1] if flip else names)
    assert command(["sample", f"run={run}", "n=2"]) == 0
    assert command(["reconstruct", f"run={run}", "examples=2"]) == 0
    assert command(["evaluate", f"run={run}", "examples=4"]) == 0
    assert {path: path.read_bytes() for path in before} == before
    assert not any((run / name).is_symlink() for name in names if (run / name).exists())
    assert not list(run.glob("samples/.*"))


@pytest.mark.parametrize("flip", [False, True])
def test_no_training_writes_through_a_link(run: Path, flip: bool) -> None:
    names = [
        "metrics.jsonl",
        "log.txt",
        "components.json",
        "codes/.train.safetensors.partial",
        "codes/train.safetensors",
    ]
    before = victims(run, names[::-1] if flip else names)
    assert command(["train", f"run={run}", "trainer.steps=7", "prior_trainer.steps=4"]) == 0
    assert {path: path.read_bytes() for path in before} == before
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 4


def test_what_takes_a_files_place_has_its_suffix_and_the_umasks_mode(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    with replacing(path) as partial:
        assert (partial.suffix, partial.parent) == (".png", tmp_path)
        partial.write_bytes(b"1")
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()
    with pytest.raises(TypeError), replacing(path) as partial:
        partial.write_bytes("2")  # type: ignore[arg-type]
    assert path.read_bytes() == b"1"
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_an_error_names_the_file_that_was_meant(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_text(tmp_path / "gone" / "x.json", "")
    assert caught.value.filename == str(tmp_path / "gone" / "x.json")


def test_a_log_that_is_a_link_gets_a_file_of_its_own(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("a\n")
    for name, link in (("soft", lambda to: to.symlink_to(outside)), ("hard", lambda to: os.link(outside, to))):
        link(tmp_path / name)
        append_text(tmp_path / name, "b\n")
        assert (tmp_path / name).read_text() == "a\nb\n"
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    append_text(tmp_path / "dangling", "b\n")
    assert not (tmp_path / "nowhere").exists()
    assert outside.read_text() == "a\n"


def test_a_log_is_cut_without_its_old_partial(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("a\n")
    (tmp_path / "metrics.partial").symlink_to(tmp_path / "outside")
    log = Log(tmp_path / "metrics.jsonl")
    for step in (1, 2):
        log.append("autoencoder", "train", step, {})
    log.cut("autoencoder", 1)
    assert [line["step"] for line in log] == [1]
    assert (tmp_path / "outside").read_text() == "a\n"


def test_what_a_metric_plots_is_moved(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "outside")

    def plot(folder: Path) -> list[Path]:
        (folder / "a.png").write_bytes(b"1")
        return [folder / "a.png"]

    assert write_into(tmp_path, plot) == [tmp_path / "a.png"]
    assert not (tmp_path / "outside").exists()


def test_what_is_logged_controls_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LogFile(Silence()) as log:
        log.open(tmp_path / "log.txt")
        log.note("a\x1b[31mb")
    assert (tmp_path / "log.txt").read_text().endswith("a\\x1b[31mb\n")


def _umask() -> int:
    before = os.umask(0)
    os.umask(before)
    return before
