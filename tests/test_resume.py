"""A run that was killed and continued ends bit for bit where one ends that was never stopped."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from toys import TOY, fingerprint, metrics, plugged_in

from toolkit import __main__ as command
from toolkit import interrupts
from toolkit.cli.config.compose import compose
from toolkit.cli.config.reopen import reopen
from toolkit.cli.continuing import continues
from toolkit.errors import Interrupted
from toolkit.evaluation import evaluate_parts
from toolkit.runs.folder import Run
from toolkit.stages import run as stages_run
from toolkit.stages.run import train

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


@pytest.fixture
def foreground() -> Iterator[None]:
    """Ctrl-C is handled as in a terminal: it is ignored where tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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
    """A report that stops the training it is told of after a step of a stage: as a kill would, or by ``how``."""

    def __init__(self, stage: str, step: int, how: type[BaseException] | signal.Signals = Stopped) -> None:
        self.stage, self.at, self.begun, self.how = stage, step, "", how

    def begin(self, stage: str, done: int, steps: int) -> None:
        self.begun = stage

    def step(self, done: int) -> None:
        if (self.begun, done) != (self.stage, self.at):
            return
        if isinstance(self.how, signal.Signals):
            signal.raise_signal(self.how)
        else:
            raise self.how

    def metrics(self, split: str, step: int, metrics: Mapping[str, float]) -> None: ...

    def note(self, text: str) -> None: ...


def stop(words: list[str], folder: Path, stage: str, step: int) -> None:
    """Trains until a step of a stage."""
    with pytest.raises(Stopped):
        train(compose(words).config, folder, report=StopAt(stage, step))


def resume(folder: Path) -> None:
    train(reopen(Run.open(folder).config_values(), []).config, folder)


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("stage", "step"),
    [("autoencoder", 3), ("autoencoder", 17), ("prior-pixelcnn", 5), ("prior-pixelcnn", 23)],
)
def test_stop_and_continue(whole: Path, tmp_path: Path, stage: str, step: int) -> None:
    stop(WORDS, tmp_path / "run", stage, step)
    resume(tmp_path / "run")
    assert fingerprint(tmp_path / "run") == fingerprint(whole)
    assert metrics(tmp_path / "run") == metrics(whole)


def last_step(folder: Path, stage: str) -> int:
    return int(max((folder / stage.replace("prior-", "priors/")).glob("step-????????")).name[5:])


STAGES = ("autoencoder", "prior-pixelcnn")


@pytest.mark.long
@pytest.mark.few(2)
@pytest.mark.usefixtures("foreground")
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("how", [KeyboardInterrupt, *interrupts.STOPPING])
def test_an_interrupted_step_is_finished_and_saved(
    whole: Path, tmp_path: Path, stage: str, how: type[BaseException] | signal.Signals
) -> None:
    """At a random step; the run then ends as one that was not interrupted, log and all."""
    step = random.randrange(1, STEPS)
    print("after step", step)
    config, report = compose(WORDS).config, StopAt(stage, step, how)
    with pytest.raises(KeyboardInterrupt) as error, interrupts.handled():
        train(config, tmp_path / "run", report=report)
    if isinstance(how, signal.Signals):
        assert isinstance(error.value, Interrupted)
        assert error.value.number == how
    assert last_step(tmp_path / "run", stage) == (step + 1 if isinstance(how, signal.Signals) else step)
    resume(tmp_path / "run")
    assert fingerprint(tmp_path / "run") == fingerprint(whole)
    assert metrics(tmp_path / "run") == metrics(whole)


@pytest.mark.long
@pytest.mark.few(1)
@pytest.mark.parametrize("step", [9, STEPS])
def test_an_interrupted_validation_is_made_up_for(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """It ends at once; its step is saved, with the weights and not their averages, and validated when it goes on."""
    calls = []

    def interrupted(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == (step > 9) + (step > 18) + 1:
            signal.raise_signal(signal.SIGTERM)
        return evaluate_parts(*args, **options)

    config = compose(WORDS).config
    with monkeypatch.context() as patch:
        patch.setattr(stages_run, "evaluate_parts", interrupted)
        with pytest.raises(Interrupted), interrupts.handled():
            train(config, tmp_path / "run")
    assert last_step(tmp_path / "run", "autoencoder") == step
    resume(tmp_path / "run")
    assert fingerprint(tmp_path / "run") == fingerprint(whole)
    assert metrics(tmp_path / "run") == metrics(whole)
    pictures = {path.name for path in (whole / "samples").iterdir()}
    assert {path.name for path in (tmp_path / "run" / "samples").iterdir()} == pictures


@pytest.mark.long
def test_an_interrupt_in_the_middle_of_a_step_saves_nothing_that_is_not_whole(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that is raised by the parts themselves."""
    from toolkit.quantizers.product import ProductQuantizer

    forward, calls = ProductQuantizer.forward, []

    def interrupted(self: ProductQuantizer, z: Any) -> Any:
        calls.append(self.training)
        if sum(calls) == 10:
            raise KeyboardInterrupt
        return forward(self, z)

    config = compose(WORDS).config
    with monkeypatch.context() as patch:
        patch.setattr(ProductQuantizer, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "run")
    assert not list((tmp_path / "run").glob("autoencoder/*"))
    resume(tmp_path / "run")
    assert fingerprint(tmp_path / "run") == fingerprint(whole)


@pytest.mark.usefixtures("foreground")
def test_a_second_signal_ends_at_once() -> None:
    """As the system does it; in a program of another's, Ctrl-C raises KeyboardInterrupt."""
    with interrupts.handled(), interrupts.deferred():
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.asked() == signal.SIGTERM
        assert {signal.getsignal(number) for number in interrupts.STOPPING} == {signal.SIG_DFL}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with interrupts.keyboard(), interrupts.deferred():
        signal.raise_signal(signal.SIGINT)
        assert interrupts.asked() == signal.SIGINT
        with pytest.raises(KeyboardInterrupt) as error:
            signal.raise_signal(signal.SIGINT)
    assert not isinstance(error.value, Interrupted)
    assert interrupts.asked() == 0


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.handled(), interrupts.keyboard():
            signal.raise_signal(signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        assert interrupts.asked() == 0
    finally:
        signal.signal(signal.SIGINT, before)


COMMAND = [sys.executable, "-m", "toolkit", "train"]


def wait_for(process: subprocess.Popen[str], there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 600
    while process.poll() is None and time.monotonic() < deadline and not there():
        time.sleep(0.01)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "status"),
    [("SIGTERM", 143), *(pytest.param(*row, marks=pytest.mark.slow) for row in [("SIGUSR1", 138), ("SIGINT", 130)])],
)
def test_the_command_says_what_continues(tmp_path: Path, name: str, status: int) -> None:
    """All processes get the signal, as from a scheduler; the loading ones let the step end."""
    run = tmp_path / "run"
    words = [*WORDS, "trainer.steps=1000000", "trainer.checkpoint_every=1000000", "trainer.workers=2"]
    process = subprocess.Popen(
        [*COMMAND, *words, f"hydra.run.dir={run}"],
        env={**os.environ, "TOOLKIT_PLUGIN_PATH": str(TOY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(process, (run / "metrics.jsonl").is_file)
    os.killpg(process.pid, getattr(signal, name))
    out, err = process.communicate(timeout=600)
    assert process.returncode == status, err
    (checkpoint,) = (run / "autoencoder").iterdir()
    assert out.splitlines()[-1] == f"stopped; toolkit train run={run} continues from autoencoder/{checkpoint.name}"
    assert err == f"toolkit train: {'interrupted' if name == 'SIGINT' else f'stopped by {name}'}\n"
    assert not (run / ".lock").exists()


def test_what_cannot_be_continued_is_not_promised(tmp_path: Path) -> None:
    run = tmp_path / "a run"
    assert "nothing was written" in continues(run)
    run.mkdir()
    (run / "config.yaml").write_text("")
    assert continues(run).startswith(f"toolkit train run='{run}' starts again")
    for name in ("autoencoder/step-00000003", "autoencoder/.step-00000004", "autoencoder/step-00000009.damaged"):
        (run / name).mkdir(parents=True)
    assert continues(run) == f"toolkit train run='{run}' continues from autoencoder/step-00000003"


@pytest.mark.long
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


@pytest.mark.slow
def test_kills(whole: Path, tmp_path: Path) -> None:
    """Three of each stage, hard and soft, at random moments, then the run is left alone."""
    seed = random.randrange(1 << 30)
    print("moments from seed", seed)
    moments = random.Random(seed)
    run, toolkit = tmp_path / "run", [sys.executable, "-m", "toolkit", "train"]
    first = [*toolkit, *WORDS, f"hydra.run.dir={run}"]
    longer = {**os.environ, "TOOLKIT_PLUGIN_PATH": str(TOY)}
    for log in [run / "metrics.jsonl"] * 3 + [run / "codes" / "val.safetensors"] * 3:
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
            os.killpg(process.pid, moments.choice([signal.SIGKILL, signal.SIGTERM]))
        process.wait()
    done = subprocess.run([*toolkit, f"run={run}"], env=longer, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(run)
    assert fingerprint(run) == fingerprint(whole)
    assert metrics(run) == metrics(whole)


@pytest.mark.slow
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
