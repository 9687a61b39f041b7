"""Kills at random moments, and commands that start at once: nothing is lost, and no folder is shared.

``TOOLKIT_KILLS=60`` asks for so many kills, ``TOOLKIT_PAIRS=20`` for so many pairs; by default a few.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest
from toys import PIXELCNN, TILES, VQ, fingerprint, metrics, trainers

from toolkit import __main__ as command
from toolkit.runs.folder import Run

KILLS, PAIRS = (int(os.environ.get(f"TOOLKIT_{name}", "4")) for name in ("KILLS", "PAIRS"))
STEPS = 300
COMMAND = [sys.executable, "-m", "toolkit", "train"]
SCHEDULE = trainers(f"steps={STEPS}", "batch_size=4", "workers=0", "log_every=1", "checkpoint_every=40", "ema=0.9")
EVERY = trainers("validate_every=100", "pictures_every=150")
WORDS = [*TILES, *VQ, *PIXELCNN, *SCHEDULE, *EVERY, "prior_trainer.allow_collapsed=true"]
TWO = ["trainer.ranks=2"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("toys"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


class Training:
    """``toolkit train`` in a process group of its own: forked, which costs no imports, or started anew for ranks."""

    def __init__(self, folder: Path, *words: str, ranks: bool = False) -> None:
        self.output = folder / f"output-{time.monotonic_ns()}.txt"
        self.status: int | None = None
        if ranks:
            env = {**os.environ, "OMP_NUM_THREADS": "1"}
            with self.output.open("w") as file:
                both = {"stdout": file, "stderr": subprocess.STDOUT}
                self._started = subprocess.Popen(
                    [*COMMAND, *words], cwd=folder, env=env, start_new_session=True, **both
                )
            self.pid = self._started.pid
            return
        self.pid = os.fork()
        if not self.pid:
            self._run(folder, words)

    def _run(self, folder: Path, words: Sequence[str]) -> NoReturn:
        status = 70
        try:
            os.setsid()
            os.chdir(folder)
            sys.stdout = sys.stderr = self.output.open("w", buffering=1)
            status = command.run(["train", *words])
        finally:
            sys.stdout.flush()
            os._exit(status)

    def ended(self, patience: float = 0.0) -> bool:
        """Whether it ends within so many seconds; ``status`` is then its own, or minus the signal's number."""
        deadline = time.monotonic() + patience
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                return False
            else:
                time.sleep(0.01)
        return True

    def trains(self, log: Path, before: int) -> None:
        """Waits until it writes into its log."""
        deadline = time.monotonic() + 300
        while not self.ended() and time.monotonic() < deadline:
            if log.exists() and log.stat().st_mtime_ns != before:
                return
            time.sleep(0.01)

    @property
    def text(self) -> str:
        return self.output.read_text()


def last_steps(run: Path) -> tuple[int, int]:
    """Of the stage that is being trained: the step of its newest checkpoint, and the last one that was logged."""
    lines = [line for line in Run(run).log if line["split"] == "train"]
    stage = lines[-1]["stage"]
    folder = run / ("autoencoder" if stage == "autoencoder" else f"priors/{stage.removeprefix('prior-')}")
    saved = [int(path.name[5:]) for path in folder.glob("step-????????")]
    return max(saved, default=0), lines[-1]["step"]


def finish(folder: Path, *words: str, ranks: bool) -> None:
    training = Training(folder, *words, ranks=ranks)
    assert training.ended(600)
    assert training.status == 0, training.text


@pytest.mark.parametrize("words", [[], TWO], ids=["one process", "two ranks"])
def test_kills_at_random_moments(tmp_path: Path, words: list[str]) -> None:
    """By TERM and KILL, over both stages: the run ends bit for bit as one that was left alone; TERM loses no step."""
    seed = random.randrange(1 << 30)
    chance, wanted = random.Random(seed), KILLS // 3 if words else KILLS - KILLS // 3
    print("seed", seed)
    finish(tmp_path, *WORDS, *words, "hydra.run.dir=whole", ranks=bool(words))
    expected = fingerprint(tmp_path / "whole"), metrics(tmp_path / "whole")
    table, rounds, killed = Counter[str](), 0, 0
    while killed < wanted:
        run, rounds = tmp_path / f"run-{rounds}", rounds + 1
        log = run / "metrics.jsonl"
        while killed < wanted:
            again = [f"run={run}"] if (run / "config.yaml").is_file() else [*WORDS, *words, f"hydra.run.dir={run}"]
            before = log.stat().st_mtime_ns if log.exists() else 0
            training = Training(tmp_path, *again, ranks=bool(words))
            training.trains(log, before)
            time.sleep(chance.random() * 2)
            number = chance.choice([signal.SIGTERM, signal.SIGKILL])
            if not training.ended():
                (os.kill if chance.random() < 0.5 else os.killpg)(training.pid, number)
            assert training.ended(300)
            if training.status == 0:
                break
            killed += 1
            assert training.status in (143, -number), (training.status, training.text)
            if training.status == 143 and "continues from" in training.text:
                saved, logged = last_steps(run)
                assert saved >= logged, f"TERM lost {logged - saved} steps"
            table[f"{number.name} {training.status}"] += 1
        finish(tmp_path, f"run={run}", ranks=bool(words))
        assert (fingerprint(run), metrics(run)) == expected
    print(dict(table), "in", rounds, "runs")


def test_commands_that_start_at_once(tmp_path: Path) -> None:
    """Without a folder each gets its own; with one, one of them trains and the other is told who does."""
    short = [word for word in WORDS if "steps=" not in word] + trainers("steps=2")
    for number in range(PAIRS):
        own = ["hydra.run.dir=one"] if number % 2 else []
        home = tmp_path / str(number)
        home.mkdir()
        both = [Training(home, *short, *own, f"seed={seed}") for seed in (0, 1)]
        assert all(training.ended(300) for training in both)
        ends = [(training.text, training.status) for training in both]
        configs = list(home.glob("**/config.yaml"))
        runs = {path.parent for path in configs if path.parent.parent.name != "priors"}
        if own:
            assert sorted(status for _, status in ends) == [0, 2], ends
            (refused,) = (text for text, status in ends if status)
            assert "holds a run" in refused or "is being trained by process" in refused
            assert len(runs) == 1
        else:
            assert [status for _, status in ends] == [0, 0], ends
            assert len({text.splitlines()[-1] for text, _ in ends}) == len(runs) == 2
            assert sorted(Run(run).config().seed for run in runs) == [0, 1]
