"""A launcher's jobs end with the command, whatever ends that; where they can, they save before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from toolkit.cli.jobs import SWEEP, told_of_signals
from toolkit.errors import Interrupted
from toolkit.runs.folder import Run

TOY = Path(__file__).parent / "toy"
MODEL = "dataset=toy_tiles encoder=toy_conv quantizer=vq quantizer.codebook_size=16 decoder=toy_conv dim=4"
LONG = "trainer.steps=10000000 trainer.checkpoint_every=10000000 trainer.log_every=1 trainer.batch_size=4"
JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep"]


@pytest.fixture
def sweep(tmp_path: Path) -> subprocess.Popen[str]:
    """A command with two jobs that never end by themselves, both of which train."""
    if find_spec("hydra_plugins") is None or find_spec("hydra_plugins.hydra_joblib_launcher") is None:
        pytest.skip("needs pip install 'discrete-toolkit[sweep]'")
    words = [*MODEL.split(), "likelihood=categorical", "stage=autoencoder", *LONG.split(), "-m", "seed=0,1", *JOBLIB]
    process = subprocess.Popen(
        [sys.executable, "-m", "toolkit", "train", *words],
        cwd=tmp_path,
        env={**os.environ, "TOOLKIT_PLUGIN_PATH": str(TOY), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    until(lambda: len(list((tmp_path / "sweep").glob("*/metrics.jsonl"))) == 2 or process.poll() is not None)
    return process


def until(there: Callable[[], bool], seconds: float = 120) -> bool:
    deadline = time.monotonic() + seconds
    while not there() and time.monotonic() < deadline:
        time.sleep(0.05)
    return there()


def gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def assert_no_step_is_lost(folder: Path) -> None:
    """The last step that was logged is saved, of each job."""
    for job in ("0", "1"):
        run = Run(folder / "sweep" / job)
        (checkpoint,) = run.autoencoder.glob("step-*")
        assert int(checkpoint.name[5:]) == [line["step"] for line in run.log][-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "status", "group"),
    [("SIGTERM", 143, False), ("SIGTERM", 143, True), ("SIGINT", 130, True), ("SIGKILL", -9, False)],
)
def test_jobs_end_with_the_command(
    sweep: subprocess.Popen[str], tmp_path: Path, name: str, status: int, group: bool
) -> None:
    """A signal goes to the command alone, or from a terminal or scheduler to all of them."""
    (os.killpg if group else os.kill)(sweep.pid, getattr(signal, name))
    try:
        out, err = sweep.communicate(timeout=120)
        assert sweep.returncode == status, err
        assert until(lambda: gone(sweep.pid), 60), "a job was left behind"
    finally:
        if not gone(sweep.pid):
            os.killpg(sweep.pid, signal.SIGKILL)
    assert_no_step_is_lost(tmp_path)
    assert out.count("stopped; toolkit train run=") == 2
    assert "Traceback" not in err


def test_without_jobs_a_signal_ends_the_command_at_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as error, told_of_signals():
        signal.raise_signal(signal.SIGTERM)
    assert error.value.number == signal.SIGTERM
    assert SWEEP not in os.environ
    assert signal.getsignal(signal.SIGTERM) == before
