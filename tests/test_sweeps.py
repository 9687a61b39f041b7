"""Sweeps by Hydra's own plugins, as commands: each job has a folder, figures and a part in the exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.errors import MissingConfigException

from toolkit.cli.config.errors import explain
from toolkit.runs.folder import Run

pytestmark = pytest.mark.long

TOY = Path(__file__).parent / "toy"
MODEL = "dataset=toy_tiles encoder=toy_conv quantizer=vq quantizer.codebook_size=16 decoder=toy_conv dim=4"
TRAINERS = "trainer.steps=4 trainer.batch_size=8 prior_trainer.steps=2 prior_trainer.allow_collapsed=true"
WORDS = f"{MODEL} likelihood=categorical {TRAINERS} prior=pixelcnn prior.hidden=8 prior.layers=2 prior.head=8".split()

LAUNCHERS = {
    "joblib": ("sweep", "joblib", "hydra.launcher.n_jobs=2"),
    "submitit_local": ("slurm", "submitit", "hydra.launcher.timeout_min=5"),
}


@pytest.fixture(params=LAUNCHERS)
def launcher(request: pytest.FixtureRequest) -> list[str]:
    """The words that choose one."""
    extra, module, option = LAUNCHERS[request.param]
    _needs(f"hydra_plugins.hydra_{module}_launcher", extra)
    return [f"hydra/launcher={request.param}", option]


@pytest.fixture
def optuna() -> list[str]:
    _needs("hydra_plugins.hydra_optuna_sweeper", "sweep")
    return ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.sampler.seed=0"]


def _needs(module: str, extra: str) -> None:
    try:
        there = find_spec(module)
    except ModuleNotFoundError:  # not even the namespace
        there = None
    if there is None:
        pytest.skip(f"needs pip install 'discrete-toolkit[{extra}]'")


@pytest.fixture
def toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command in an empty folder, with the toy parts."""
    monkeypatch.setenv("TOOLKIT_PLUGIN_PATH", str(TOY))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "toolkit", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    return call


def scores(sweep: Path) -> list[float]:
    """What the runs of a sweep were judged by, read off their logs: nats per example, both stages."""
    found = []
    for run in sorted(path.parent for path in sweep.glob("*/metrics.jsonl")):
        lines = [line for line in list(Run(run).log) if line["split"] == "val"]
        assert {line["stage"] for line in lines} == {"autoencoder", "prior-pixelcnn"}
        found.append(lines[-2]["nll"] + lines[-1]["loss"])
    return found


@pytest.mark.slow
def test_a_launcher_runs_each_job_in_a_folder_of_its_own(
    launcher: list[str], toolkit: Callable[..., Any], tmp_path: Path
) -> None:
    done = toolkit("train", *WORDS, "-m", "seed=0,1", *launcher, "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "sweep: sweep"
    sweep = tmp_path / "sweep"
    assert sorted(path.parent.name for path in sweep.glob("*/config.yaml")) == ["0_seed=0", "1_seed=1"]
    assert [Run(sweep / name).config().seed for name in ("0_seed=0", "1_seed=1")] == [0, 1]
    assert len(set(scores(sweep))) == 2
    done = toolkit("compare", "sweep")
    assert done.returncode == 0, done.stderr
    rows = json.loads((sweep / "compare.json").read_text())
    assert {"seed=0", "seed=1"} == {row["label"] for row in rows["runs"]}


@pytest.mark.slow
def test_a_job_that_fails_stops_no_other(launcher: list[str], toolkit: Callable[..., Any], tmp_path: Path) -> None:
    done = toolkit("train", *WORDS, "-m", "encoder.stride=4,2", *launcher, "hydra.sweep.dir=sweep")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("toolkit train: decoder=toy_conv gives (2, 4, 4)")
    assert "Traceback" not in done.stderr
    assert [path.parent.name for path in (tmp_path / "sweep").glob("*/config.yaml")] == ["1_stride=2"]
    assert len(scores(tmp_path / "sweep")) == 1


@pytest.mark.slow
def test_a_job_that_is_killed_is_told_in_a_sentence(
    launcher: list[str], toolkit: Callable[..., Any], tmp_path: Path
) -> None:
    """As the system does where memory runs out."""
    plugin = tmp_path / "plugin"
    plugin.mkdir()
    (plugin / "pyproject.toml").write_text(
        '[project]\nname = "deadly"\n[project.entry-points."toolkit.encoder"]\ndeadly = "deadly:Deadly"\n'
    )
    (plugin / "deadly.py").write_text(
        "import os, signal\nfrom toolkit import Encoder\nclass Deadly(Encoder):\n"
        "    def __init__(self, *, kills: bool = True) -> None:\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    def forward(self, x):\n        return x\n"
    )
    words = ["encoder=deadly", "-m", "seed=0,1", *launcher, "hydra.sweep.dir=sweep"]
    done = toolkit("--plugin", str(plugin), "train", *(w for w in WORDS if not w.startswith("encoder")), *words)
    assert done.returncode == 2
    (said,) = (line for line in done.stderr.splitlines() if line.startswith("toolkit train: "))
    assert said.startswith("toolkit train: a job of the sweep was lost: ")
    assert len(said) < 500
    assert "goes on" in done.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("words", [["trainer.ranks=2"], ["trainer.workers=1"]], ids=str)
def test_jobs_start_processes_of_their_own(
    launcher: list[str], toolkit: Callable[..., Any], tmp_path: Path, words: list[str]
) -> None:
    done = toolkit("train", *WORDS, *words, "-m", "seed=0,1", *launcher, "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stderr
    assert len(scores(tmp_path / "sweep")) == 2


@pytest.mark.slow
def test_a_launcher_under_torchrun_is_refused(launcher: list[str], tmp_path: Path, toolkit: Callable[..., Any]) -> None:
    """Its processes would wait for the other ranks for ever."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "toolkit"]
    command = [*torchrun, "train", *WORDS, "-m", "seed=0,1", *launcher, "hydra.sweep.dir=sweep"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert "toolkit train: under torchrun the runs of a sweep come one after the other" in done.stderr
    assert not list(tmp_path.glob("sweep/*/config.yaml"))


@pytest.mark.slow
def test_optuna_finds_the_run_with_the_fewest_bits(
    optuna: list[str], toolkit: Callable[..., Any], tmp_path: Path
) -> None:
    rate = "trainer.learning_rate=tag(log, interval(1e-4, 1e-2))"
    done = toolkit("train", *WORDS, "-m", *optuna, rate, "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())
    nats = scores(tmp_path / "sweep")
    assert len(set(nats)) == 2
    best = nats.index(min(nats))
    assert found["best_value"] == pytest.approx(nats[best] / (128 * 0.6931471805599453))
    rates = [Run(tmp_path / "sweep" / str(job)).config().trainer.learning_rate for job in (0, 1)]
    assert found["best_params"]["trainer.learning_rate"] == pytest.approx(rates[best])


@pytest.mark.slow
def test_optuna_with_joblib_tries_two_at_a_time(optuna: list[str], toolkit: Callable[..., Any], tmp_path: Path) -> None:
    words = ["hydra/launcher=joblib", "hydra.sweeper.n_jobs=2", "dim=choice(4,8)", "hydra.sweep.dir=sweep"]
    done = toolkit("train", *[word for word in WORDS if word != "dim=4"], "-m", *optuna, *words)
    assert done.returncode == 0, done.stderr
    assert len(scores(tmp_path / "sweep")) == 2


def test_a_sweep_takes_no_folder_that_holds_one(toolkit: Callable[..., Any], tmp_path: Path) -> None:
    """Its jobs would go on with those of the other, whatever these were."""
    (tmp_path / "a sweep" / "0").mkdir(parents=True)
    (tmp_path / "a sweep" / "0" / "config.yaml").write_text("seed: 0\n")
    done = toolkit("train", *WORDS, "-m", "seed=2,3", "hydra.sweep.dir=a sweep")
    assert done.returncode == 2
    assert done.stderr == (
        "toolkit train: a sweep holds a run: continue it with toolkit train run='a sweep/0', or take another folder\n"
    )
    assert done.stdout == ""


@pytest.mark.parametrize(("choice", "extra"), [("launcher/joblib", "sweep"), ("launcher/submitit_slurm", "slurm")])
def test_a_missing_extra_is_named(choice: str, extra: str) -> None:
    file = f"hydra/{choice}"
    error = MissingConfigException(f"Could not find '{file}'", missing_cfg_file=file, options=["basic"])
    assert str(explain(error, [])).splitlines()[-1] == f"it comes with pip install 'discrete-toolkit[{extra}]'"
