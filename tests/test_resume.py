"""A run that was killed and continued ends bit for bit where one ends that was never stopped."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from toys import TOY, fingerprint, metrics, plugged_in

from toolkit import __main__ as command
from toolkit.cli.config.compose import compose
from toolkit.cli.config.reopen import reopen
from toolkit.runs.folder import Run
from toolkit.stages import train

STEPS = 24
PARTS = """
dataset=toy_tiles encoder=toy_conv decoder=toy_conv likelihood=categorical dim=4
quantizer=product quantizer.inner.name=ema quantizer.inner.dead_code_threshold=0.5 quantizer.inner.codebook_size=16
prior=pixelcnn prior.hidden=8 prior.layers=2 prior.head=8 prior.dropout=0.1 conditions.prior=[kind]
"""
TRAINER = f"""
steps={STEPS} batch_size=5 checkpoint_every=7 log_every=4 validate_every=9 pictures_every=10
ema=0.9 clip=1.0 schedule=cosine warmup=3 accumulate=2 workers=0
"""
WORDS = PARTS.split() + [f"{stage}.{word}" for stage in ("trainer", "prior_trainer") for word in TRAINER.split()]


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_PLUGIN_PATH", str(TOY))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    with plugged_in():
        train(compose(WORDS).config, folder)
    return folder


class Stopped(Exception):
    """Stands for a kill, in the same process."""


class StopAt:
    """A report that stops the training it is told of, as a kill would, after a step of a stage."""

    def __init__(self, stage: str, step: int) -> None:
        self.stage, self.at, self.begun = stage, step, ""

    def begin(self, stage: str, done: int, steps: int) -> None:
        self.begun = stage

    def step(self, done: int) -> None:
        if (self.begun, done) == (self.stage, self.at):
            raise Stopped

    def metrics(self, split: str, step: int, metrics: Mapping[str, float]) -> None: ...

    def note(self, text: str) -> None: ...


def stop(words: list[str], folder: Path, stage: str, step: int) -> None:
    """Trains until a step of a stage."""
    with pytest.raises(Stopped):
        train(compose(words).config, folder, report=StopAt(stage, step))


def resume(folder: Path) -> None:
    train(reopen(Run.open(folder).config_values(), []).config, folder)


@pytest.mark.parametrize(
    ("stage", "step"),
    [("autoencoder", 3), ("autoencoder", 17), ("prior-pixelcnn", 5), ("prior-pixelcnn", 23)],
)
def test_stop_and_continue(whole: Path, tmp_path: Path, stage: str, step: int) -> None:
    stop(WORDS, tmp_path / "run", stage, step)
    resume(tmp_path / "run")
    assert fingerprint(tmp_path / "run") == fingerprint(whole)
    assert metrics(tmp_path / "run") == metrics(whole)


def test_training_longer_equals_training_long_at_once(whole: Path, tmp_path: Path) -> None:
    """With a schedule that does not look at the end: half the steps, then all of them."""
    words = [w for w in WORDS if "schedule" not in w]
    half = [w.replace(f"steps={STEPS}", f"steps={STEPS // 2}") for w in words]
    train(compose(words).config, tmp_path / "once")
    train(compose(half).config, tmp_path / "twice")
    again = reopen(
        Run.open(tmp_path / "twice").config_values(), [f"trainer.steps={STEPS}", f"prior_trainer.steps={STEPS}"]
    )
    train(again.config, tmp_path / "twice")
    assert fingerprint(tmp_path / "twice") == fingerprint(tmp_path / "once")
    assert (tmp_path / "twice" / "config-2.yaml").is_file()
    assert any((tmp_path / "twice" / "priors").glob("pixelcnn.old-1/step-*")), "the older codes' prior is kept"


@pytest.mark.parametrize("kills", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_kill_9(kills: int, whole: Path, tmp_path: Path) -> None:
    """So many kills at random moments of each stage, then the run is left alone."""
    seed = random.randrange(1 << 30)
    print("moments from seed", seed)
    moments = random.Random(seed)
    run, toolkit = tmp_path / "run", [sys.executable, "-m", "toolkit", "train"]
    first = [*toolkit, *WORDS, f"hydra.run.dir={run}"]
    longer = {**os.environ, "TOOLKIT_PLUGIN_PATH": str(TOY)}
    for log in [run / "metrics.jsonl"] * kills + [run / "codes" / "val.safetensors"] * kills:
        words = [*toolkit, f"run={run}"] if (run / "config.yaml").is_file() else first
        process = subprocess.Popen(
            words, env=longer, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + 600
        before = log.stat().st_mtime_ns if log.exists() else 0
        while process.poll() is None and time.monotonic() < deadline:
            if log.exists() and (log.stat().st_mtime_ns != before or log.name != "metrics.jsonl"):
                break
            time.sleep(0.002)
        time.sleep(moments.random() * 0.4)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run([*toolkit, f"run={run}"], env=longer, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(run)
    assert fingerprint(run) == fingerprint(whole)
    assert metrics(run) == metrics(whole)


def test_another_prior_on_a_finished_autoencoder(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(whole, run)
    assert command.run(["train", f"run={run}", "stage=prior", "prior=uniform"]) == 0
    assert "nothing to train" in capsys.readouterr().out
    assert command.run(["evaluate", f"run={run}", "examples=8"]) == 0
    told = json.loads((run / "evaluation.json").read_text())
    assert set(told["priors"]) == {"uniform", "pixelcnn"}
