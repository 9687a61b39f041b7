"""Kills at random moments, and commands that start at once: nothing is lost, and no folder is shared.

``TOOLKIT_KILLS=60`` asks for so many kills, ``TOOLKIT_PAIRS=20`` for so many pairs; by default a few.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from toys import PIXELCNN, TILES, VQ, fingerprint, metrics, trainers

from toolkit import __main__ as command
from toolkit.runs.folder import Run

KILLS, PAIRS = (int(os.environ.get(f"TOOLKIT_{name}", "4")) for name in ("KILLS", "PAIRS"))
STAGES = ("autoencoder", "prior-pixelcnn")
KILLS_OF_A_RUN, EARLY = 6, 0.15
"""And the share of kills that come before the stage is trained."""
STEPS = 120
COMMAND = [sys.executable, "-m", "toolkit", "train"]
SCHEDULE = trainers(f"steps={STEPS}", "batch_size=4", "workers=0", "log_every=1", "checkpoint_every=20", "ema=0.9")
EVERY = trainers("validate_every=50", "pictures_every=60")
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
        self.output.touch()
        self.status: int | None = None
        self._started: subprocess.Popen[bytes] | None = None
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
            torch.set_num_threads(torch.get_num_threads())  # a fork's pool is made anew, which two threads must not do
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
                if self._started is not None:  # else it complains that nobody has waited for it
                    self._started.returncode = self.status
            elif time.monotonic() > deadline:
                return False
            else:
                time.sleep(0.01)
        return True

    def wait_for(self, stage: str, steps: int) -> None:
        """Waits until it has reported so many steps of a stage, or has come further."""
        deadline = time.monotonic() + 300
        while not self.ended() and time.monotonic() < deadline:
            reported = self.reported
            if len([step for of, step in reported if of == stage]) >= steps:
                return
            if reported and STAGES.index(reported[-1][0]) > STAGES.index(stage):
                return
            time.sleep(0.01)

    @property
    def text(self) -> str:
        return self.output.read_text()

    @property
    def reported(self) -> list[tuple[str, int]]:
        """Stage and number of every step that it says it has done."""
        return [(stage, int(step)) for stage, step in re.findall(r"(\S+) train step (\d+)/", self.text)]

    def lost(self, run: Path) -> int:
        """How many steps it has reported that are in no checkpoint."""
        if not self.reported:
            return 0
        stage, step = self.reported[-1]
        folder = run / stage.replace("prior-", "priors/")
        return max(0, step - max((int(path.name[5:]) for path in folder.glob("step-????????")), default=0))


def finish(folder: Path, *words: str, ranks: bool) -> None:
    training = Training(folder, *words, ranks=ranks)
    assert training.ended(600)
    assert training.status == 0, training.text


def planned(chance: random.Random, kills: int) -> list[tuple[str, signal.Signals]]:
    """In which stage each kill comes, and by what: of each kind equally many."""
    kinds = [(stage, number) for stage in STAGES for number in (signal.SIGTERM, signal.SIGKILL)]
    plan = [kinds[number % len(kinds)] for number in range(kills)]
    chance.shuffle(plan)
    return plan


@pytest.mark.parametrize("words", [[], TWO], ids=["one process", "two ranks"])
def test_kills_at_random_moments(tmp_path: Path, words: list[str]) -> None:
    """By TERM and KILL, over both stages: the run ends bit for bit as one that was left alone; TERM loses no step."""
    seed = random.randrange(1 << 30)
    chance, ranks = random.Random(seed), bool(words)
    plan = planned(chance, KILLS // 3 if words else KILLS - KILLS // 3)
    print("seed", seed)
    finish(tmp_path, *WORDS, *words, "hydra.run.dir=whole", ranks=ranks)
    expected = fingerprint(tmp_path / "whole"), metrics(tmp_path / "whole")
    table, lost, number = Counter[str](), Counter[str](), 0
    while plan:
        run, number = tmp_path / f"run-{number}", number + 1
        kills, plan = sorted(plan[:KILLS_OF_A_RUN], key=lambda kill: STAGES.index(kill[0])), plan[KILLS_OF_A_RUN:]
        for place, (stage, kill) in enumerate(kills):
            again = [f"run={run}"] if (run / "config.yaml").is_file() else [*WORDS, *words, f"hydra.run.dir={run}"]
            training = Training(tmp_path, *again, ranks=ranks)
            if chance.random() < EARLY:  # also before it trains
                time.sleep(chance.random() * (8 if ranks else 2))
            else:
                training.wait_for(stage, chance.randrange(1, STEPS // 5))
                time.sleep(chance.random() * 0.3)
            if not training.ended():
                (os.kill if chance.random() < 0.5 else os.killpg)(training.pid, kill)
            assert training.ended(300)
            if training.status == 0:  # it came too late
                plan += kills[place:]
                break
            assert training.status in (143, -kill), (training.status, training.text)
            last = training.reported[-1][0] if training.reported else "before a step"
            table[f"{kill.name} {training.status}, {last}"] += 1
            lost[kill.name] += training.lost(run)
            assert not lost["SIGTERM"], training.text
        finish(tmp_path, f"run={run}", ranks=ranks)
        assert (fingerprint(run), metrics(run)) == expected
        shutil.rmtree(run)
    print(dict(sorted(table.items())), "steps lost:", dict(lost), "in", number, "runs")


SHORT = [word for word in WORDS if "steps=" not in word] + trainers("steps=2")


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory, toys: None) -> Path:
    """A run that may go on, and one that has."""
    home = tmp_path_factory.mktemp("short")
    finish(home, *SHORT, "hydra.run.dir=run", ranks=False)
    shutil.copytree(home / "run", home / "longer")
    finish(home, "run=longer", *trainers("steps=9"), ranks=False)
    return home


def test_commands_that_start_at_once(tmp_path: Path, short: Path) -> None:
    """Without a folder each gets its own; with one, one of them trains and the other is told who does."""
    ways: dict[str, Callable[[Path], str]] = {
        "no folder": lambda home: each_gets_its_own(home),
        "one folder": lambda home: one_of_them_trains(home),
        "one run": lambda home: one_of_them_continues(home, short),
    }
    table = Counter[str]()
    for number in range(PAIRS):
        way = list(ways)[number % len(ways)]
        home = tmp_path / str(number)
        home.mkdir()
        table[f"{way}: {ways[way](home)}"] += 1
    print(dict(table))


def pair(home: Path, *words: str, seeds: Sequence[str] = ("seed=0", "seed=1")) -> list[Training]:
    """Two commands that start at once, ended."""
    both = [Training(home, *words, *([seed] if seed else [])) for seed in seeds]
    assert all(training.ended(300) for training in both)
    return both


def each_gets_its_own(home: Path) -> str:
    both = pair(home, *SHORT)
    assert [training.status for training in both] == [0, 0], [training.text for training in both]
    runs = {path.parent for path in home.glob("outputs/*/*/config.yaml")}
    assert len({training.text.splitlines()[-1] for training in both}) == len(runs) == 2
    assert sorted(Run(run).config().seed for run in runs) == [0, 1]
    return "two runs"


def one_of_them_trains(home: Path) -> str:
    both = pair(home, *SHORT, "hydra.run.dir=one")
    assert sorted(training.status or 0 for training in both) == [0, 2], [training.text for training in both]
    (refused,) = (training.text for training in both if training.status)
    (seed,) = (seed for seed, training in enumerate(both) if not training.status)
    assert Run(home / "one").config().seed == seed
    assert len(list(home.glob("*/config.yaml"))) == 1
    return "one refused as " + ("it is being trained" if said_who(refused) else "it holds a run")


def said_who(refused: str) -> bool:
    trained = "is being trained by process" in refused
    assert trained or "holds a run" in refused
    return trained


def one_of_them_continues(home: Path, short: Path) -> str:
    """Or both, one after the other, where there is nothing left to do for the second."""
    shutil.copytree(short / "run", home / "run")
    both = pair(home, "run=run", *trainers("steps=9"), seeds=("", ""))
    statuses = sorted(training.status or 0 for training in both)
    assert statuses in ([0, 2], [0, 0]), [training.text for training in both]
    assert all(said_who(training.text) for training in both if training.status)
    assert (fingerprint(home / "run"), metrics(home / "run")) == (
        fingerprint(short / "longer"),
        metrics(short / "longer"),
    )
    return "one refused" if statuses[1] else "one after the other"
