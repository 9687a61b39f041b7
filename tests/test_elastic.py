"""Who starts a command again where it was lost, and so has its run continued."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote
from subprocess import STDOUT, Popen
from textwrap import dedent

import pytest
from toys import TILES, TOY, VQ, fingerprint, metrics

from toolkit import interrupts
from toolkit.cli.ranks import torchrun


@pytest.mark.parametrize(
    ("environment", "again"),
    [
        ({}, False),
        ({"TORCHELASTIC_MAX_RESTARTS": "3"}, False),
        (
            {"TORCHELASTIC_MAX_RESTARTS": "3", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "x", "WORLD_SIZE": "2"},
            True,
        ),
        (
            {"TORCHELASTIC_MAX_RESTARTS": "0", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "x", "WORLD_SIZE": "2"},
            False,
        ),
        ({"SLURM_RESTART_COUNT": "1"}, True),
        ({"SLURM_RESTART_COUNT": "0"}, False),
    ],
)
def test_who_starts_again(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], again: bool) -> None:
    for name in ("TORCHELASTIC_MAX_RESTARTS", "SLURM_RESTART_COUNT", "RANK", "LOCAL_RANK", "MASTER_ADDR", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert torchrun.starts_again() is again


@pytest.mark.parametrize(("passed_on", "signals"), [(False, 1), (True, 2)])
def test_a_signal_that_is_passed_on_is_the_same_one(passed_on: bool, signals: int) -> None:
    """A scheduler ends all processes, and torchrun those that it has started: the step at hand is finished."""
    with interrupts.handled(passed_on=passed_on), interrupts.deferred():
        for _ in range(signals):
            signal.raise_signal(signal.SIGTERM)
            assert interrupts.asked() == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "the next one ends it"


# -- two agents of torchrun, as on two machines

STEPS = 300
WORDS = [
    *(*TILES, *VQ, "stage=autoencoder", "trainer.batch_size=4", "trainer.workers=0", "trainer.timeout=1"),
    *(f"trainer.steps={STEPS}", "trainer.log_every=1", "trainer.checkpoint_every=10", "trainer.validate_every=100"),
    "trainer.pictures_every=1000",
]
ADDRESSES = ("127.0.0.1", "localhost")
"""By rank: torchrun numbers agents in the order of their addresses."""
UNSHARED = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""Else an agent that comes later waits for an address that the others wrote down when they met first."""
ELASTIC = ["--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=mine", "--max-restarts=3"]


@contextmanager
def agents(folder: Path, run: Path) -> Iterator[Callable[[int], Popen[bytes]]]:
    """Starts an agent with one worker, of this rank; the first one is where they meet. All are gone at the end."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        meeting = f"--rdzv-endpoint=localhost:{free.getsockname()[1]}"
    started: list[Popen[bytes]] = []
    env = {**os.environ, "TOOLKIT_PLUGIN_PATH": str(TOY), "OMP_NUM_THREADS": "1", **UNSHARED}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", *ELASTIC, meeting]

    def start(rank: int) -> Popen[bytes]:
        with (folder / f"agent-{len(started)}.txt").open("wb") as file:
            address = f"--local-addr={ADDRESSES[rank]}"
            command = [*launcher, address, "-m", "toolkit", "train", *WORDS, f"hydra.run.dir={run}"]
            started.append(Popen(command, cwd=folder, env=env, stdout=file, stderr=STDOUT))
        return started[-1]

    try:
        yield start
    finally:
        for agent in started:
            kill(agent)
        for path in sorted(folder.glob("agent-*.txt")):
            print(path.name, path.read_text()[-3000:], sep="\n")


def kill(agent: Popen[bytes]) -> None:
    """An agent and its workers at once, as a machine that loses its power."""
    pids = [agent.pid, *descendants(agent.pid)]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    agent.wait()


def descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [number for child in map(int, children) for number in (child, *descendants(child))]


def until(happened: Callable[[], bool], patience: float = 300.0) -> None:
    deadline = time.monotonic() + patience
    while not happened():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.05)


def logged(run: Path) -> int:
    path = run / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.is_file() else 0


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="workers are found below /proc")
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_node_comes_back_and_the_run_goes_on(tmp_path: Path, lost: int) -> None:
    """Killed without a word and started again: the other agent meets it, and the run ends as one never stopped."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    with agents(tmp_path, whole) as start:
        assert [agent.wait(300) for agent in (start(0), start(1))] == [0, 0]
    with agents(tmp_path, run) as start:
        stays = start(1 - lost)
        time.sleep(3)  # so that it is where they meet
        node = start(lost)
        until(lambda: logged(run) > 40)
        kill(node)
        print("lost at step", logged(run))
        assert 40 < logged(run) < STEPS
        again = start(lost)
        assert [agent.wait(300) for agent in (stays, again)] == [0, 0]
    assert metrics(run) == metrics(whole)
    steps = [line["step"] for line in metrics(run) if line["split"] == "train"]
    assert steps == list(range(1, STEPS + 1)), "without a hole, and none twice"
    assert fingerprint(run) == fingerprint(whole)


# -- Slurm, of which the commands that the page's script calls are played

SCONTROL = """#!{python}
import os, pathlib, signal, sys
folder = pathlib.Path("{folder}")
if sys.argv[1:] == ["show", "hostnames"]:
    print("localhost")
elif sys.argv[1] == "requeue":
    (folder / "requeued").write_text(sys.argv[2])
    sys.path.insert(0, "{tests}")
    from test_elastic import descendants
    step = int((folder / "step").read_text())
    for pid in (step, *descendants(step)):  # as Slurm ends all processes of the job's steps
        os.kill(pid, signal.SIGTERM)
"""
SRUN = """#!/bin/bash
echo $$ > {folder}/step
exec {python} -m torch.distributed.run "${{@:2}}"
"""
SLOWLY = ["trainer.steps=2000", "trainer.log_every=1", "trainer.checkpoint_every=100000"]


def script(folder: Path, run: Path, *words: str) -> list[str]:
    """The page's, for one machine with two ranks and a small model."""
    page = (Path(__file__).parents[1] / "docs" / "scale.md").read_text()
    text = dedent(page[page.index("    #!/bin/bash") : page.index("A job that was put back")])
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    start, end = text.index("-m toolkit train"), text.index(" &\n")
    text = text[:start] + " ".join(["-m toolkit train", *map(quote, words), f"hydra.run.dir={run}"]) + text[end:]
    for name, other in (("--nnodes 8 --nproc-per-node 8", "--nnodes 1 --nproc-per-node 2"), ("29500", str(port))):
        assert name in text
        text = text.replace(name, other)
    names = {"folder": folder, "python": sys.executable, "tests": Path(__file__).parent}
    for command, content in (("scontrol", SCONTROL), ("srun", SRUN)):
        path = folder / "bin" / command
        path.parent.mkdir(exist_ok=True)
        path.write_text(content.format(**names))
        path.chmod(0o755)
    (folder / "job.sh").write_text(text)
    return ["bash", str(folder / "job.sh")]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are found below /proc")
def test_a_job_of_slurm_is_put_back_before_its_time_is_up(tmp_path: Path) -> None:
    """All ranks finish their step and save it; the next start of the job goes on from there to the end."""
    run, words = tmp_path / "run", [*WORDS, *SLOWLY]
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    env = {**os.environ, "TOOLKIT_PLUGIN_PATH": str(TOY), "OMP_NUM_THREADS": "1", "PATH": path, "SLURM_JOB_ID": "7"}
    command = script(tmp_path, run, *words)
    with (tmp_path / "job.txt").open("wb") as output:
        job = Popen(command, env=env, stdout=output, stderr=STDOUT, start_new_session=True)
        until(lambda: logged(run) > 40)
        os.kill(job.pid, signal.SIGUSR1)  # to the script alone: --signal=B:USR1
        until(lambda: (tmp_path / "requeued").is_file())
        step = int((tmp_path / "step").read_text())
        until(lambda: not Path(f"/proc/{step}").exists() or not descendants(step), 60)
        job.wait(60)
        assert (tmp_path / "requeued").read_text() == "7"
        (kept,) = (run / "autoencoder").glob("step-*")
        print("stopped at", kept.name, "with", logged(run), "lines logged")
        last = max(line["step"] for line in metrics(run))
        assert 0 <= int(kept.name[5:]) - last <= 1, "no step is lost"
        again = Popen(command, env={**env, "SLURM_RESTART_COUNT": "1"}, stdout=output, stderr=STDOUT)
        assert again.wait(300) == 0
    print((tmp_path / "job.txt").read_text()[-3000:])
    assert [line["step"] for line in metrics(run) if line["split"] == "train"] == list(range(1, 2001))


SLOW = """
import os, sys, time
sys.path.insert(0, os.environ["TOOLKIT_PLUGIN_PATH"].partition(os.pathsep)[0])
from toy_plugin import TilesDataset

class SlowDataset(TilesDataset):
    def example(self, split, index, generator):
        time.sleep(0.1 if split == "train" else 0)
        return super().example(split, index, generator)
"""


@pytest.mark.slow
def test_submitit_starts_a_job_again_whose_time_is_up(tmp_path: Path) -> None:
    """Its local launcher does what that of Slurm does, with half a minute of each: the job goes on in its folder."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs pip install 'discrete-toolkit[slurm]'")
    home, sweep, steps = tmp_path / "slow", tmp_path / "sweep", 90
    home.mkdir()
    (home / "slow_plugin.py").write_text(SLOW)
    points = '[project]\nname = "slow"\nversion = "1"\n[project.entry-points."toolkit.dataset"]\n'
    (home / "pyproject.toml").write_text(f'{points}slow = "slow_plugin:SlowDataset"\n')
    env = {**os.environ, "TOOLKIT_PLUGIN_PATH": f"{TOY}{os.pathsep}{home}", "OMP_NUM_THREADS": "1"}
    words = [word for word in WORDS if not word.startswith("dataset=")]
    words += ["dataset=slow", f"trainer.steps={steps}", "trainer.checkpoint_every=5", f"hydra.sweep.dir={sweep}"]
    launcher = ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=1"]
    command = [sys.executable, "-m", "toolkit", "train", *words, "-m", "seed=0", *launcher]
    with (tmp_path / "output.txt").open("wb") as output:
        assert Popen(command, cwd=tmp_path, env=env, stdout=output, stderr=STDOUT).wait(400) == 0
    told = "".join(path.read_text() for path in sweep.rglob("*_log.*"))
    print(told[-3000:])
    assert "Requeued job" in told
    (run,) = (path.parent for path in sweep.rglob("metrics.jsonl"))
    assert [line["step"] for line in metrics(run) if line["split"] == "train"] == list(range(1, steps + 1))
