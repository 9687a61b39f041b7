"""One training at a time writes into a run's folder, and a kill gives it free."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from toolkit import ToolkitError
from toolkit.cli.config.reopen import reopen
from toolkit.runs import lock as subject
from toolkit.runs.folder import Run
from toolkit.runs.lock import LOCK, training_lock
from toolkit.stages.run import train

HOLDER = """
import os, sys, time
from pathlib import Path
from toolkit.runs.lock import training_lock
with training_lock(Path(sys.argv[1])):
    child = os.fork() if "fork" in sys.argv else 0
    if child or "fork" not in sys.argv:
        print(child, flush=True)
    time.sleep(600)
"""


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "PATIENCE", 0.0)


@pytest.mark.usefixtures("impatient")
def test_the_second_is_refused_and_says_who_is_first(tmp_path: Path) -> None:
    run = tmp_path / "a run"
    with training_lock(run), pytest.raises(ToolkitError) as error, training_lock(run):
        pass
    message = str(error.value)
    assert f"{run} is being trained by process {os.getpid()} on {socket.gethostname()} since 2" in message
    assert f"toolkit train run='{run}'" in message
    with training_lock(run):
        pass


@pytest.mark.usefixtures("impatient", "toys")
def test_a_run_in_training_is_left_as_it_is(toy_run: Path, tmp_path: Path) -> None:
    """By continuations and by other priors alike; whoever only reads is let in."""
    run = Run(shutil.copytree(toy_run, tmp_path / "run"))
    with training_lock(run.path):
        before = snapshot(run.path)
        for words in (["trainer.steps=9"], ["stage=prior", "prior=uniform"]):
            with pytest.raises(ToolkitError, match="is being trained by process"):
                train(reopen(run.config_values(), words).config, run.path)
        assert snapshot(run.path) == before
        assert Run.open(run.path).config()


def test_the_lock_leaves_nothing_behind(tmp_path: Path) -> None:
    """Neither itself, nor folders that were created for it and hold nothing."""
    run = tmp_path / "outputs" / "run"
    with suppress(ValueError), training_lock(run):
        assert (run / LOCK).is_file()
        raise ValueError
    assert not list(tmp_path.iterdir())
    with training_lock(run):
        (run / "config.yaml").write_text("")
    assert [path.name for path in run.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("words", [[], ["fork"]])
def test_a_kill_gives_the_folder_free(tmp_path: Path, words: list[str]) -> None:
    """Also where processes that the training forked, such as those that load data, outlive it."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), *words], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert holder.stdout
        assert holder.stdout.readline()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with training_lock(tmp_path):
            pass
    finally:
        if words:
            os.killpg(holder.pid, signal.SIGKILL)
        holder.communicate()


@pytest.mark.usefixtures("impatient")
def test_another_process_is_refused_too(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout
        assert holder.stdout.readline()
        with pytest.raises(ToolkitError, match=f"process {holder.pid} on"), training_lock(tmp_path):
            pass
    finally:
        holder.kill()
        holder.communicate()


@pytest.mark.parametrize("text", ["", "no JSON", "[]", '{"pid": 1}', "[" * 900])
def test_an_unsigned_lock_is_somebodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(subject, "PATIENCE", 0.0)
    with training_lock(tmp_path):
        (tmp_path / LOCK).write_text(text)
        with pytest.raises(ToolkitError, match="trained by another process"), training_lock(tmp_path):
            pass


def test_a_lock_does_not_move_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "PATIENCE", 0.0)
    with training_lock(tmp_path):
        (tmp_path / LOCK).write_text('{"pid": "\\u001b[2J", "host": "a\\nb", "since": "now"}')
        with pytest.raises(ToolkitError) as error, training_lock(tmp_path):
            pass
    assert r"process \x1b[2J on a b since now" in str(error.value)


IN_ITS_PLACE: dict[str, Callable[[Path, Path], object]] = {
    "a link": lambda path, other: path.symlink_to(other),
    "a hard link": lambda path, other: path.hardlink_to(other),
    "a link to nothing": lambda path, other: path.symlink_to(other.with_name("none")),
    "a folder": lambda path, other: path.mkdir(),
    "a pipe": lambda path, other: os.mkfifo(path),
}


@pytest.mark.parametrize("what", IN_ITS_PLACE)
def test_what_is_in_the_locks_place_is_never_written(tmp_path: Path, what: str) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    other.write_text("mine")
    IN_ITS_PLACE[what](run / LOCK, other)
    with pytest.raises(ToolkitError, match=rf"run/{LOCK} "), training_lock(run):
        pass
    assert other.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "run"]


def test_without_locks_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that has none, training goes on."""

    def unsupported(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(subject, "flock", unsupported)
    with training_lock(tmp_path), training_lock(tmp_path):
        assert (tmp_path / LOCK).is_file()
