"""A stranger's experiment: YAML chooses parts and options, and never names code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from messages import assert_names
from toys import TILES

from toolkit import __main__ as command
from toolkit.cli import sweeps
from toolkit.cli.config.compose import compose
from toolkit.errors import ToolkitError

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("toys")]

EVIL = """
from pathlib import Path


class Evil:
    def __init__(self, *args, **kwargs):
        Path("ran").touch()

    def __call__(self, *args, **kwargs): ...
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a folder of YAML in it, and a module that says when it runs."""
    (tmp_path / "my" / "experiment").mkdir(parents=True)
    (tmp_path / "evil_module.py").write_text(EVIL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "evil_module", raising=False)
    return tmp_path


def experiment(work: Path, text: str, name: str = "evil", defaults: str = "") -> None:
    head = f"# @package _global_\ndefaults:\n{defaults}  - _self_\n"
    (work / "my" / "experiment" / f"{name}.yaml").write_text(head + text)


def refused(work: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The sentence with which a command refuses; nothing has run and nothing was written."""
    assert command.run(["train", "--config-dir", "my", "experiment=evil", *TILES, *words]) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert not (work / "ran").exists()
    assert not (work / "outputs").exists()
    return err.removeprefix("toolkit train: ")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ("callbacks: {c: {_target_: evil_module.Evil}}", "hydra.callbacks.c._target_"),
        ("job_logging: {version: 1, handlers: {h: {(): evil_module.Evil}}}", "hydra.job_logging.handlers"),
        ("hydra_logging: {version: 1, root: {handlers: []}}", "hydra.hydra_logging.root"),
        ("job: {env_set: {LD_PRELOAD: /tmp/x.so}}", "hydra.job.env_set.LD_PRELOAD"),
        ("job: {env_copy: [HOME]}", "hydra.job.env_"),
        ("job: {chdir: true}", "hydra.job.chdir"),
        ("output_subdir: ../../x", "hydra.output_subdir"),
        ("mode: MULTIRUN", "hydra.mode"),
        ("verbose: true", "hydra.verbose"),
        ("help: {template: x}", "hydra.help.template"),
        ("overrides: {task: ['seed=3']}", "hydra.overrides.task"),
        ("launcher: {_target_: evil_module.Evil}", "hydra.launcher._target_=evil_module.Evil … hydra/launcher=NAME"),
        ("sweeper: {_target_: evil_module.Evil}", "hydra.sweeper._target_=evil_module.Evil … hydra/sweeper=NAME"),
        ("launcher: {setup: [touch ran]}", "experiment/evil.yaml: hydra.launcher.setup"),
        ("sweeper: {params: {hydra.job_logging.version: '1'}}", "hydra.sweeper.params.hydra.job_logging.version"),
        ("sweeper: {params: {+hydra.callbacks.c._target_: x}}", "hydra.sweeper.params.+hydra.callbacks.c._target_"),
        ("sweeper: {params: {experiment: 'a,b'}}", "hydra.sweeper.params.experiment"),
    ],
)
@pytest.mark.few(5)
def test_yaml_sets_little_of_hydra(work: Path, capsys: pytest.CaptureFixture[str], settings: str, named: str) -> None:
    experiment(work, f"hydra:\n  {settings}\n")
    assert_names(refused(work, capsys), named)


def test_it_is_refused_by_whatever_composes(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment(work, "hydra:\n  callbacks: {c: {_target_: evil_module.Evil}}\n")
    for flags in (["-m"], ["--help"], ["--info"], ["--cfg", "job"], ["--cfg", "hydra"], ["-m", "--cfg", "all"]):
        assert_names(refused(work, capsys, *flags), "hydra.callbacks.c._target_: … run, sweep, launcher, sweeper")
    assert command.run(["check", "--config-dir", "my", "experiment=evil", *TILES]) == 2
    with pytest.raises(ToolkitError, match=r"hydra\.callbacks"):
        compose(["experiment=evil", *TILES], folder=str(work / "my"))


def test_presets_and_groups_are_refused_too(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "my" / "quantizer").mkdir()
    (work / "my" / "quantizer" / "small.yaml").write_text("defaults: [vq, /experiment/other, _self_]\n")
    experiment(work, "hydra: {callbacks: {c: {_target_: evil_module.Evil}}}", "other")
    experiment(work, "", defaults="  - override /quantizer: small\n")
    assert_names(refused(work, capsys), "hydra.callbacks.c._target_")
    for group, name, text in (
        ("hydra/launcher", "mine", "_target_: evil_module.Evil"),
        ("hydra/sweeper", "mine", "_target_: evil_module.Evil"),
        ("hydra/callbacks", "mine", "c: {_target_: evil_module.Evil}"),
    ):
        (work / "my" / group).mkdir(parents=True)
        (work / "my" / group / f"{name}.yaml").write_text(f"# @package {group.replace('/', '.')}\n{text}\n")
        experiment(work, "", defaults=f"  - override /{group}: {name}\n")
        assert_names(refused(work, capsys, "-m"), group.replace("/", "."))


def test_a_search_path_of_an_experiments_own_is_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment(work, "hydra:\n  searchpath: ['file:///tmp']\n")
    assert "hydra.searchpath" in refused(work, capsys)


def test_a_launcher_gets_no_lines_of_a_script(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    slurm = "  - override /hydra/launcher: submitit_slurm\n"
    experiment(work, 'hydra: {launcher: {setup: ["touch ran"]}}\n', defaults=slurm)
    assert_names(refused(work, capsys, "-m"), "hydra.launcher.setup … command line")
    experiment(work, 'hydra: {launcher: {partition: "gpu\\ntouch ran"}}\n', defaults=slurm)
    assert_names(refused(work, capsys, "-m"), "hydra.launcher.partition … one line")
    experiment(work, "hydra: {launcher: {partition: gpu, timeout_min: 7}}\n", defaults=slurm)
    assert compose(["experiment=evil", *TILES, "hydra.launcher.setup=[x]"], folder="my")  # the user's own word


def test_a_sweeper_gets_no_functions_by_name(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    optuna = "  - override /hydra/sweeper: optuna\n"
    experiment(work, "hydra: {sweeper: {custom_search_space: evil_module.Evil}}\n", defaults=optuna)
    assert_names(refused(work, capsys, "-m"), "hydra.sweeper.custom_search_space")
    experiment(work, "hydra: {sweeper: {sampler: {_target_: evil_module.Evil}}}\n", defaults=optuna)
    assert_names(refused(work, capsys, "-m"), "hydra.sweeper.sampler._target_=evil_module.Evil")
    genetic = f"{optuna}  - override /hydra/sweeper/sampler: nsgaii\n"
    experiment(work, "hydra: {sweeper: {sampler: {constraints_func: {_target_: x}}}}\n", defaults=genetic)
    assert_names(refused(work, capsys, "-m"), "hydra.sweeper.sampler.constraints_func._target_ … code")
    kept = "hydra: {sweeper: {n_trials: 2, sampler: {seed: 1}, params: {seed: 'range(0,9)'}}}\n"
    experiment(work, kept, defaults=optuna)
    assert compose(["experiment=evil", *TILES], folder="my")


def test_an_experiment_may_say_where_its_runs_go(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment(work, "hydra: {run: {dir: 'mine/${seed}'}, sweep: {dir: sweeps/mine, subdir: 'run-${hydra.job.num}'}}\n")
    composed = compose(["experiment=evil", *TILES, "seed=3"], folder=str(work / "my"))
    assert (composed.run_dir, composed.sweep_dir) == ("mine/3", "sweeps/mine")
    plain = compose(TILES)
    assert (plain.run_dir, plain.sweep_dir) == (None, None)


def test_the_environment_may_be_read(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SEED", "7")
    experiment(work, "seed: ${oc.decode:${oc.env:MY_SEED}}\n")
    assert compose(["experiment=evil", *TILES], folder=str(work / "my")).values["seed"] == 7


def test_every_experiment_of_a_sweep_is_checked() -> None:
    words = ["experiment=" + ",".join(f"e{number}" for number in range(100)), "seed=1,2"]
    assert {run[0] for run in sweeps.checked(words)} == {f"experiment=e{number}" for number in range(100)}
