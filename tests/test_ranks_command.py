"""The command trains in many ranks: one folder, one log, no rank left behind, and it says whose fault an end was."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_ranks import EMA, MODEL, PRIOR, assert_alike
from toys import TOY, plugged_in
from two_ranks import PATIENCE

import toolkit
from toolkit.cli.ranks import launch
from toolkit.cli.ranks.worker import RankReport
from toolkit.errors import Interrupted
from toolkit.runs.folder import Run
from toolkit.stages.recorder import CLOCKED

SMALL = """
trainer.steps=6 trainer.batch_size=4 trainer.log_every=2 trainer.checkpoint_every=3 trainer.workers=0
prior_trainer.steps=4 prior_trainer.batch_size=4 prior_trainer.log_every=2 prior_trainer.workers=0
"""
WORDS = f"{MODEL} {PRIOR} {EMA} {SMALL} prior.dropout=0.2 conditions.prior=[kind]".split()
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
PLUGIN = """
import os, signal, sys, time
sys.path.insert(0, os.environ["TOOLKIT_PLUGIN_PATH"].partition(os.pathsep)[0])
from toy_plugin import ToyDataset, KIND
from toolkit import DataSpec, ToolkitError, distributed

class FailingDataset(ToyDataset):
    def __init__(
        self, *, how: str = "", rank: int = 1, after: int = 12, nap: float = 0.0, split: str = "train"
    ) -> None:
        self.spec = DataSpec(2, (8, 8), 8, variance=0.3, conditions=(KIND,))
        self.how, self.rank, self.left, self.nap, self.split = how, rank, after, nap, split

    def example(self, split, index, generator):
        self.left -= split == self.split
        time.sleep(self.nap if split == "val" else 0)
        if self.left < 0 and distributed.rank() == self.rank:
            if self.how in ("mistake", "sleep"):
                raise ToolkitError("example 12 is cut short")
            if self.how == "failure":
                raise KeyError("example 12")
            if self.left == -1:
                os.kill(os.getpid(), getattr(signal, self.how))
        if self.left < 0 and self.how == "sleep":
            time.sleep(1000)
        return super().example(split, index, generator)
"""


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_PLUGIN_PATH", str(TOY))


def started(*words: str, before: tuple[str, ...] | list[str] = ()) -> subprocess.Popen[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    toolkit_ = [sys.executable, *before, "-m", "toolkit", "train"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    before_exec = partial(
        signal.signal, signal.SIGINT, signal.SIG_DFL
    )  # it is ignored where tests run in the background
    return subprocess.Popen([*toolkit_, *words], env=env, preexec_fn=before_exec, **pipes)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Status, output and errors of a command that left no process behind."""
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        print(*process.communicate(), sep="\n")
        raise
    assert gone(process.pid), "a process was left behind"
    return process.returncode, out, err


def gone(group: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def train(*words: str, before: tuple[str, ...] | list[str] = ()) -> tuple[int, str, str]:
    return ended(started(*words, before=before))


def steps(run: Path) -> list[tuple[str, str, int]]:
    return [(line["stage"], line["split"], line["step"]) for line in list(Run(run).log)]


ONCE = [
    *(("autoencoder", "train", step) for step in (2, 4, 6)),
    ("autoencoder", "val", 6),
    *(("prior-pixelcnn", "train", step) for step in (2, 4)),
    ("prior-pixelcnn", "val", 4),
]


def test_whose_signal_ended_the_ranks(tmp_path: Path) -> None:
    """The command's is a stop; one rank's own is told; the launcher's, once another rank was lost, is neither."""
    reports = {rank: RankReport("stopped", 1.0, signal=signal.SIGTERM, own=rank == 1) for rank in (0, 1)}
    with pytest.raises(Interrupted) as stop:
        launch._fail(reports, {0: 1, 1: 1}, [], signal.SIGTERM, 10.0, tmp_path)
    assert stop.value.number == signal.SIGTERM
    with pytest.raises(toolkit.ToolkitError, match=r"^rank 1 was ended by SIGTERM, and the others stopped with it\n"):
        launch._fail(reports, {0: 1, 1: 1}, [], 0, 10.0, tmp_path)
    with pytest.raises(toolkit.ToolkitError, match=r"^rank 0 was killed by SIGKILL"):
        launch._fail({1: reports[1]}, {0: -signal.SIGKILL}, [], 0, 10.0, tmp_path)


@pytest.mark.slow
def test_a_run_of_two_ranks(tmp_path: Path) -> None:
    """Both stages: one folder, every line of the log once, checkpoints that any number of ranks opens."""
    run = tmp_path / "run"
    status, out, err = train(*WORDS, "trainer.ranks=2", "logger=toy_counting", f"hydra.run.dir={run}")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == str(run)
    assert out.count("prior-pixelcnn: from 0 to 4") == 1
    assert steps(run) == ONCE
    calls = [json.loads(line) for line in (run / "counted.jsonl").read_text().splitlines()]
    assert [tuple(line[key] for key in ("stage", "split", "step")) for call, line in calls if call == "log"] == ONCE
    assert [what[0] for call, what in calls if call == "close"] == ["done"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    state = load_file(run / "autoencoder" / "step-00000006" / "state.safetensors")
    assert not torch.equal(state["random.cpu"], state["random.1.cpu"])
    assert toolkit.load(run).sample(2, {"kind": torch.tensor([0, 2])}).x.shape == (2, 2, 8, 8)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks that was never stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    with plugged_in():
        words = [
            "trainer.ranks=2",
            "trainer.log_every=4",
            "prior_trainer.log_every=3",
            "prior_trainer.checkpoint_every=2",
        ]
        assert train(*WORDS, *words, f"hydra.run.dir={run}")[0] == 0
    return run


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "last"), [("autoencoder", "step-00000006"), ("priors/pixelcnn", "step-00000004")])
def test_two_ranks_continue_exactly(whole: Path, tmp_path: Path, stage: str, last: str) -> None:
    """A run that lost its last checkpoint goes on from the one before, to the same bits and the same log."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / stage / last)
    assert train(f"run={run}", "stage=autoencoder" if stage == "autoencoder" else "stage=all")[0] == 0
    for name in ("model", "state"):
        one, other = (load_file(each / stage / last / f"{name}.safetensors") for each in (whole, run))
        assert one.keys() == other.keys()
        assert [key for key in one if not torch.equal(one[key], other[key])] == []
    name = stage.replace("priors/", "prior-")
    assert figures_of(run, name) == figures_of(whole, name)


def figures_of(run: Path, stage: str) -> list[dict[str, Any]]:
    """A stage's log without what depends on the clock."""
    lines = [line for line in list(Run(run).log) if line["stage"] == stage]
    return [{k: v for k, v in line.items() if k not in CLOCKED} for line in lines]


@pytest.mark.slow
def test_compiled_ranks_equal_eager_ones(whole: Path, tmp_path: Path) -> None:
    """The quantizer, whose collectives must keep their order, stays out of the graph."""
    words = ["trainer.ranks=2", "trainer.compile=true", "stage=autoencoder", f"hydra.run.dir={tmp_path / 'run'}"]
    assert train(*WORDS, *words)[0] == 0
    eager, compiled = (
        load_file(run / "autoencoder" / "step-00000006" / "model.safetensors") for run in (whole, tmp_path / "run")
    )
    for name, value in eager.items():
        torch.testing.assert_close(compiled[name], value, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_another_number_of_ranks_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(*WORDS, "stage=autoencoder", f"hydra.run.dir={run}")[0] == 0
    status, _, err = train(f"run={run}", "stage=all", "trainer.ranks=2", "trainer.steps=8")
    assert (status, err) == (0, "")
    assert train(f"run={run}", "trainer.ranks=1", "trainer.steps=9")[0] == 0
    assert [step for stage, split, step in steps(run) if (stage, split) == ("autoencoder", "train")] == [2, 4, 6, 8, 9]


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words of a run whose dataset fails on one rank."""
    home = tmp_path / "failing"
    home.mkdir()
    (home / "failing_plugin.py").write_text(PLUGIN)
    points = '[project]\nname = "failing"\nversion = "1"\n[project.entry-points."toolkit.dataset"]\n'
    (home / "pyproject.toml").write_text(f'{points}failing = "failing_plugin:FailingDataset"\n')
    monkeypatch.setenv("TOOLKIT_PLUGIN_PATH", f"{TOY}{os.pathsep}{home}")
    words = [word for word in WORDS if not word.startswith("dataset=")]
    return [*words, "dataset=failing", "trainer.steps=100000", "trainer.ranks=2", f"hydra.run.dir={tmp_path / 'run'}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "status", "told"),
    [
        ("mistake", 2, "toolkit train: rank 1: example 12 is cut short\n"),
        ("sleep", 2, "toolkit train: rank 1: example 12 is cut short\n"),
        ("failure", 1, "toolkit train: rank 1: KeyError: 'example 12' ("),
        ("SIGKILL", 2, "toolkit train: rank 1 was killed by SIGKILL"),
        ("SIGSEGV", 2, "toolkit train: rank 1 was killed by SIGSEGV"),
    ],
)
def test_a_failing_rank_ends_all(failing: list[str], how: str, status: int, told: str) -> None:
    """Within seconds, told once, without a traceback, and no process stays."""
    began = time.monotonic()
    code, _, err = train(*failing, f"dataset.how={how}")
    assert (code, err[: len(told)]) == (status, told), err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 3
    assert time.monotonic() - began < 60


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_ended_by_someone_else_is_told(failing: list[str], tmp_path: Path, rank: int) -> None:
    """All stop with it and save, as when the command is stopped; but that was not, so this is no 143."""
    words = ["dataset.how=SIGTERM", f"dataset.rank={rank}", "trainer.checkpoint_every=100000"]
    code, _, err = train(*failing, *words)
    (checkpoint,) = (tmp_path / "run" / "autoencoder").iterdir()
    again = f"toolkit train run={tmp_path / 'run'} continues from autoencoder/{checkpoint.name}"
    assert (code, err) == (
        2,
        f"toolkit train: rank {rank} was ended by SIGTERM, and the others stopped with it\n{again}\n",
    )


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_loading_process_that_is_killed_is_told(failing: list[str], tmp_path: Path, ranks: int) -> None:
    """Of several ranks, by the one that reports first: the loading processes of all are killed."""
    words = [f"trainer.ranks={ranks}", "dataset.rank=0", "trainer.workers=1", "trainer.checkpoint_every=2"]
    code, _, err = train(*failing, *words, "dataset.how=SIGKILL")
    told, again = err.replace("rank 1: ", "").splitlines()
    assert code == 2
    assert told.startswith("toolkit train: a process that loads data was killed, which is what the system does")
    assert again.startswith(f"toolkit train run={tmp_path / 'run'} ")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("how", "message"),
    [("SIGKILL", "was killed by SIGKILL"), ("SIGSTOP", "did not answer for trainer.timeout=0.1 min")],
)
def test_a_rank_that_is_lost_in_validation_is_named(failing: list[str], how: str, message: str, rank: int) -> None:
    words = ["dataset.split=val", "dataset.after=2", "trainer.validate_every=2", "trainer.timeout=0.1"]
    code, _, err = train(*failing, f"dataset.how={how}", f"dataset.rank={rank}", *words)
    assert code == 2
    assert err.startswith(f"toolkit train: rank {rank} {message}")
    assert "starts again: it has no checkpoint yet" in err


@pytest.mark.slow
def test_debug_shows_the_ranks_traceback(failing: list[str]) -> None:
    code, _, err = train(*failing, "dataset.how=failure", "--debug")
    assert code == 1
    assert "failing_plugin.py" in err
    assert "of rank 1" in err


@pytest.mark.slow
def test_what_no_rank_can_start_is_told_once(tmp_path: Path) -> None:
    run = tmp_path / "run"
    code, out, err = train(*WORDS, "encoder.stride=4", "trainer.ranks=2", f"hydra.run.dir={run}")
    assert (code, out) == (2, "")
    assert err.count("toolkit train: ") == 1
    assert "change the encoder's or the decoder's strides" in err
    assert not run.exists()


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["the command", "everybody"])
@pytest.mark.parametrize(
    ("name", "status", "says"),
    [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "stopped by SIGTERM"), ("SIGUSR1", 138, "stopped by SIGUSR1")],
)
def test_a_signal_stops_all(failing: list[str], tmp_path: Path, name: str, status: int, says: str, whom: str) -> None:
    """From a terminal or a scheduler it reaches every process, from elsewhere the command alone."""
    process = started(*failing, "dataset.after=100000000", "trainer.checkpoint_every=100000")
    until(lambda: (tmp_path / "run" / "metrics.jsonl").is_file())
    (os.kill if whom == "the command" else os.killpg)(process.pid, getattr(signal, name))
    code, out, err = ended(process)
    assert (code, err) == (status, f"toolkit train: {says}\n")
    (checkpoint,) = (tmp_path / "run" / "autoencoder").iterdir()
    assert out.splitlines()[-1].startswith("stopped; toolkit train run=")
    assert out.splitlines()[-1].endswith(f"continues from autoencoder/{checkpoint.name}")


@pytest.mark.slow
def test_two_ranks_lose_no_step_to_a_signal(tmp_path: Path) -> None:
    """Stopped anywhere and continued, they end bit for bit where they end unstopped, with the same log."""
    longer = ["trainer.ranks=2", "trainer.steps=300", "trainer.log_every=7", "trainer.checkpoint_every=1000"]
    words = [*WORDS, *longer, "stage=autoencoder"]
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert train(*words, f"hydra.run.dir={whole}")[0] == 0
    process = started(*words, f"hydra.run.dir={run}")
    until(lambda: (run / "metrics.jsonl").is_file())
    os.kill(process.pid, signal.SIGTERM)
    assert ended(process)[0] == 143
    (stopped,) = (run / "autoencoder").iterdir()
    print("at", stopped.name)
    assert train(f"run={run}")[0] == 0
    for name in ("model", "state"):
        one, other = (load_file(path / "autoencoder/step-00000300" / f"{name}.safetensors") for path in (whole, run))
        assert_alike(one, other)
    assert figures_of(run, "autoencoder") == figures_of(whole, "autoencoder")


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint_every", [3, 100])
def test_a_signal_during_validation(failing: list[str], tmp_path: Path, checkpoint_every: int) -> None:
    """All ranks leave it after the example at hand, and its step is saved, unless it is already."""
    words = ["dataset.after=100000000", "dataset.nap=5.0", "trainer.validate_every=3", "trainer.batch_size=1"]
    process = started(*failing, *words, "trainer.log_every=1", f"trainer.checkpoint_every={checkpoint_every}")
    until(lambda: (tmp_path / "run" / "metrics.jsonl").is_file() and len(list(Run(tmp_path / "run").log)) == 3)
    time.sleep(1)
    os.kill(process.pid, signal.SIGINT)
    assert ended(process)[0] == 130
    assert [path.name for path in (tmp_path / "run" / "autoencoder").iterdir()] == ["step-00000003"]
    assert not any(line["split"] == "val" for line in Run(tmp_path / "run").log)


@pytest.mark.slow
def test_a_signal_while_codes_are_encoded(failing: list[str], tmp_path: Path) -> None:
    """All ranks stop after the batch at hand, and what they have written of the codes is removed."""
    words = ["dataset.after=100000000", "dataset.nap=2.0", "trainer.validate_every=100", "prior_trainer.batch_size=1"]
    process = started(*failing, *words, "trainer.steps=2", "trainer.validate_examples=1", "trainer.pictures_every=100")
    codes = tmp_path / "run" / "codes"
    until(lambda: (codes / "train.safetensors").is_file())
    time.sleep(1)
    os.kill(process.pid, signal.SIGTERM)
    status, out, _ = ended(process)
    assert status == 143
    assert "continues from autoencoder/step-00000002" in out
    assert [path.name for path in codes.iterdir()] == ["train.safetensors"]


@pytest.mark.slow
def test_ranks_do_not_outlive_the_command(failing: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does the folder where they meet."""
    aside = tmp_path / "aside"
    aside.mkdir()
    monkeypatch.setenv("TMPDIR", str(aside))
    process = started(*failing, "dataset.after=100000000")
    until(lambda: (tmp_path / "run" / "metrics.jsonl").is_file())
    assert list(aside.glob("toolkit-*"))
    process.kill()
    process.communicate(timeout=60)
    assert gone(process.pid)
    assert not list(aside.glob("toolkit-*"))


def until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_sweep_of_two_ranks(tmp_path: Path) -> None:
    """One job after the other; one that fails stops no other."""
    words = [*WORDS, "trainer.ranks=2", "stage=autoencoder", "-m", "encoder.stride=4,2", f"hydra.sweep.dir={tmp_path}"]
    _, out, err = train(*words)
    assert "run 0 failed: decoder=toy_conv" in err
    assert out.splitlines()[-1] == str(tmp_path / "1")
    assert steps(tmp_path / "1") == [line for line in ONCE if line[0] == "autoencoder"]


# -- under torchrun


@pytest.mark.slow
def test_torchrun(tmp_path: Path) -> None:
    """One folder and one log, the same weights as those of trainer.ranks=2, which is what the run then says it has."""
    run, other = tmp_path / "run", tmp_path / "other"
    code, out, err = train(*WORDS, f"hydra.run.dir={run}", before=TORCHRUN)
    assert code == 0, err
    assert out.splitlines()[-1] == str(run)
    assert steps(run) == ONCE
    assert Run(run).config().trainer.ranks == 2
    assert train(*WORDS, f"hydra.run.dir={other}", "trainer.ranks=2")[0] == 0
    one, two = (load_file(path / "autoencoder" / "step-00000006" / "model.safetensors") for path in (run, other))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert train(f"run={run}", "trainer.steps=8", before=TORCHRUN)[0] == 0
    assert ("autoencoder", "train", 8) in steps(run)


@pytest.mark.slow
def test_a_sweep_under_torchrun(tmp_path: Path) -> None:
    words = [*WORDS, "stage=autoencoder", "-m", "seed=0,1", f"hydra.sweep.dir={tmp_path}"]
    code, _, err = train(*words, before=TORCHRUN)
    assert code == 0, err
    for job in ("0_seed=0", "1_seed=1"):
        assert steps(tmp_path / job) == [line for line in ONCE if line[0] == "autoencoder"]


@pytest.mark.slow
@pytest.mark.parametrize(("word", "told"), [("nonsense=1", "has no nonsense"), ("encoder.stride=4", "strides")])
def test_a_mistake_under_torchrun_is_told_once(tmp_path: Path, word: str, told: str) -> None:
    code, out, err = train(*WORDS, word, f"hydra.run.dir={tmp_path / 'run'}", before=TORCHRUN)
    assert code != 0
    assert set(out.splitlines()) <= {f"run: {tmp_path / 'run'}"}
    assert err.count("toolkit train: ") == 1
    assert told in err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_failing_rank_under_torchrun(failing: list[str], rank: int) -> None:
    code, _, err = train(*failing, "dataset.how=mistake", f"dataset.rank={rank}", before=TORCHRUN)
    assert code != 0
    assert err.count("example 12 is cut short") == 1


@pytest.mark.slow
def test_help_under_torchrun(tmp_path: Path) -> None:
    code, out, _ = train("--help", before=TORCHRUN)
    assert code == 0
    assert out.count("== Configuration groups ==") <= 1
