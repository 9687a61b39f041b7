"""What the system refuses, in a sentence: disks, names, limits, and processes that it ends."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from messages import assert_names
from toys import TILES

from toolkit import __main__ as command
from toolkit.cli.safe_path import safe_path
from toolkit.failures import explain
from toolkit.running_metrics import RunningMetrics

pytestmark = pytest.mark.long

LONG = "x" * 256


@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (OSError(errno.ENOSPC, "full", "a/b.json"), "a/b.json: no space"),
        (PermissionError(errno.EACCES, "no", "a/b.json"), "a/b.json: permission denied"),
        (OSError(errno.EROFS, "no", "a/b.json"), "a/b.json: the disk is read-only"),
        (FileNotFoundError(errno.ENOENT, "gone", "a"), "a: no such file"),
        (OSError(errno.EMFILE, "many"), "this process has too many files open … ulimit -n"),
        (OSError(errno.ENAMETOOLONG, "long", "x"), "x: the name is too long … 255"),
        (
            RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed. "),
            "a process that loads data was killed … memory … trainer.workers=",
        ),
        (
            RuntimeError("DataLoader worker (pid(s) 5, 6) exited unexpectedly"),
            "a process that loads data was killed … memory … trainer.workers=0",
        ),
        (
            RuntimeError("DataLoader worker (pid 5) is killed by signal: Segmentation fault. "),
            "a process that loads data was ended by a signal (Segmentation fault) … trainer.workers=0",
        ),
        (
            RuntimeError("DataLoader worker (pid 5) exited unexpectedly with exit code 7. Details are lost due to"),
            "a process that loads data ended with status 7 … trainer.workers=0",
        ),
        (
            RuntimeError("DataLoader worker (pid 5) is killed by signal: Bus error. It is possible that dataloader's"),
            "the processes that load data have no room left in /dev/shm … trainer.workers=0",
        ),
        (
            RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nunable to write to file </torch_1_2>:"),
            "the processes that load data have no room left in /dev/shm … trainer.workers=0",
        ),
        (
            RuntimeError("Too many open files. Communication with the workers is no longer possible. Please increase"),
            "the processes that load data have too many files open … ulimit -n … trainer.workers=0",
        ),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried"),
            "memory ran out … alloc_cpu",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "memory ran out … 2.00 GiB"),
        (RuntimeError("Storage size calculation overflowed with sizes=[9, 9]"), "memory ran out … sizes=[9, 9]"),
        (MemoryError(), "memory ran out"),
        (
            OSError("Caught OSError in DataLoader worker process 0.\nOSError: [Errno 24] Too many open files"),
            "the processes that load data have too many files open … ulimit -n … trainer.workers=0",
        ),
    ],
)
def test_the_systems_failures_are_sentences(error: Exception, facts: str) -> None:
    assert_names(explain(error) or "", facts)


@pytest.mark.parametrize("error", [RuntimeError("shared memory of mine"), ConnectionResetError(104, "x"), OSError("x")])
def test_other_failures_are_not_explained(error: Exception) -> None:
    assert explain(error) is None


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize(
    "words",
    [
        ["train", *TILES, f"hydra.run.dir={LONG}"],
        ["train", f"run={LONG}"],
        ["train", f"experiment={LONG}"],
        ["train", f"dataset={LONG}"],
        ["train", "--config-dir", LONG, "experiment=x"],
        ["check", f"run={LONG}"],
        ["sample", f"run={LONG}"],
        ["evaluate", f"run={LONG}"],
        ["reconstruct", f"run={LONG}"],
        ["encode", f"run={LONG}", LONG, "out=x"],
        ["decode", f"run={LONG}", LONG, "out=x"],
        ["compare", LONG],
        ["plugins", "encoder", LONG],
        ["plugins", "--plugin", LONG],
        ["new-plugin", LONG, "encoder=x"],
        [LONG],
    ],
    ids=lambda words: " ".join(words).replace(LONG, "LONG"),
)
def test_a_long_name_is_a_mistake(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.run(words) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("verb", ["sample", "reconstruct", "encode", "decode"])
def test_a_long_name_of_what_is_written(
    verb: str, toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.json").write_text(str(torch.zeros(2, 8, 8, dtype=torch.int64).tolist()))
    files = {"encode": ["x.json"], "decode": ["codes.safetensors"]}.get(verb, [])
    if verb == "decode":
        assert command.run(["encode", f"run={toy_run}", "x.json", "out=codes.safetensors"]) == 0
    assert command.run([verb, f"run={toy_run}", *files, f"out={LONG}"]) == 2
    assert "too long" in capsys.readouterr().err


def test_an_oserror_of_a_command_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(args: list[str]) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "x/y.json")

    monkeypatch.setattr("toolkit.cli.plugins.main", broken)
    assert command.run(["plugins"]) == 2
    assert capsys.readouterr().err == "toolkit plugins: x/y.json: no space is left on the disk\n"


@pytest.mark.usefixtures("toys")
def test_a_jobs_failure_is_not_about_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "components.json")

    monkeypatch.setattr("toolkit.cli.job.train", full)
    for more in ([], ["hydra.run.dir=x"]):
        assert command.run(["train", *TILES, *more]) == 2
        assert_names(capsys.readouterr().err, "toolkit train: components.json: no space … start it again")


@pytest.mark.usefixtures("toys")
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_run_on_a_read_only_disk(toy_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = _copied(toy_run, tmp_path)
    try:
        for path in (run, run / "samples"):
            path.chmod(0o500)
        _reads_only(run, capsys)
    finally:
        for path in (run, run / "samples"):
            path.chmod(0o700)


@pytest.mark.usefixtures("toys")
def test_figures_are_shown_where_they_cannot_be_written(
    toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _copied(toy_run, tmp_path)

    def refuse(*args: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("toolkit.scoring.write_text", refuse)
    monkeypatch.setattr("toolkit.writing.os.replace", refuse)
    assert command.run(["evaluate", f"run={run}", "examples=4"]) == 0
    out, err = capsys.readouterr()
    assert "bits_per_dim" in out
    assert "evaluation.json could not be written: Read-only" in err
    assert "the pictures could not be written" in err


def test_processes_import_nothing_from_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "selectors.py").write_text("print('EVIL')")
    code = "import selectors"
    with safe_path():
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert "PYTHONSAFEPATH" not in os.environ


def test_a_command_starts_processes_with_a_safe_path(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("toolkit.cli.plugins.main", lambda args: seen.append(os.environ.get("PYTHONSAFEPATH")) or 0)
    assert command.run(["plugins"]) == 0
    assert seen == ["1"]


def test_a_resumed_runs_metrics_keep_their_order() -> None:
    metrics = {"loss": torch.tensor(1.0), "nll": torch.tensor(2.0), "aux": torch.tensor(3.0)}
    running = RunningMetrics()
    running.add(1, metrics)
    saved = running.state()
    resumed = RunningMetrics()
    resumed.load({name: saved[name] for name in sorted(saved)}, torch.device("cpu"))
    for each in (running, resumed):
        each.add(2, {**metrics, "nll": torch.tensor(4.0)})
    assert list(resumed.drain().items()) == list(running.drain().items()) == [("loss", 1.0), ("nll", 3.0), ("aux", 3.0)]


def _copied(toy_run: Path, tmp_path: Path) -> Path:
    run = tmp_path / "run"
    shutil.copytree(toy_run, run)
    (run / "samples").mkdir(exist_ok=True)
    return run


def _reads_only(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["evaluate", f"run={run}", "examples=4"]) == 0
    out, err = capsys.readouterr()
    assert "bits_per_dim" in out
    assert "could not be written" in err
    assert command.run(["train", f"run={run}", "trainer.steps=9"]) == 2
    assert str(run) in capsys.readouterr().err
