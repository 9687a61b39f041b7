"""``toolkit train``: words to runs and their folders, sweeps, and what Hydra answers."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from command_plugin import fails
from messages import assert_names

from toolkit import __main__ as command
from toolkit.cli.fresh import create_folder
from toolkit.errors import ToolkitError


@pytest.mark.long
def test_train_runs_what_was_composed(
    cli_plugin: Path, would_train: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run(["train", "experiment=d_small", "encoder.hidden=3"]) == 0
    [(config, folder)] = would_train
    assert config["encoder"] == {"name": "d_enc", "hidden": 3, "norm": "group", "bias": True}
    assert config["experiment"] == {"name": "d_small", "instead_of": {"encoder.hidden": 8}}
    assert folder.is_dir()
    assert folder.parent == Path("outputs/d_small").resolve()
    assert not list(folder.iterdir())
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.long
def test_two_runs_of_one_second_have_two_folders(cli_plugin: Path, would_train: list[Any]) -> None:
    for _ in range(2):
        assert command.run(["train", "experiment=d_small"]) == 0
    assert would_train[0][1] != would_train[1][1]


def test_runs_that_start_at_once_never_share_a_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(create_folder, [tmp_path / "outputs" / "demo"] * 64))
    assert len(set(folders)) == 64
    assert all(folder.is_dir() for folder in folders)


def test_a_file_in_the_place_of_the_outputs_is_named(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("")
    for parent in (tmp_path / "outputs", tmp_path / "outputs" / "demo"):
        with pytest.raises(ToolkitError, match=r"the run's folder cannot be created: .*outputs"):
            create_folder(parent)


@pytest.mark.parametrize("word", ["hydra/launcher=nope", "hydra.nope=1"])
def test_what_hydra_refuses_leaves_no_folder(
    cli_plugin: Path, would_train: list[Any], capsys: pytest.CaptureFixture[str], word: str
) -> None:
    fails(capsys, "train", "experiment=d_small", word)
    assert not list(Path.cwd().iterdir())


@pytest.mark.long
def test_the_folder_may_be_named(cli_plugin: Path, would_train: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "experiment=d_small", "hydra.run.dir=my run, (1)=[x]"]
    assert command.run(words) == 0
    assert would_train[0][1] == Path("my run, (1)=[x]").resolve()
    (would_train[0][1] / "config.yaml").write_text("")
    assert "my run, (1)=[x] holds a run: continue it with" in fails(capsys, *words)
    assert len(would_train) == 1


@pytest.mark.parametrize(
    "word", ["encoder.hiden=3", "encoder=nope", "trainer.steps=-1", "encoder.hidden=[", "experment=x", "-cn=x"]
)
def test_a_wrong_configuration_leaves_nothing_behind(
    cli_plugin: Path, would_train: list[Any], capsys: pytest.CaptureFixture[str], word: str
) -> None:
    err = fails(capsys, "train", "experiment=d_small", word)
    assert err.startswith("toolkit train: ")
    assert len(err.splitlines()) <= 3
    assert not list(Path.cwd().iterdir())
    assert not would_train


def test_nothing_chosen_lists_what_there_is(cli_plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    err = fails(capsys, "train")
    assert "experiments: " in err
    assert "d_small" in err
    assert "d_data" in err


@pytest.mark.long
def test_a_sweep_runs_each_combination(
    cli_plugin: Path, would_train: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "experiment=d_small", "-m", "encoder.hidden=1,2", "dataset.root=/a b,/c", "dim=3"]
    assert command.run(words) == 0
    values = [(config["encoder"]["hidden"], config["dataset"]["root"]) for config, _ in would_train]
    assert values == [(1, "/a b"), (1, "/c"), (2, "/a b"), (2, "/c")]
    began = [config["experiment"] for config, _ in would_train]
    assert began == [{"name": "d_small", "instead_of": {"dim": 64, "dataset.root": "data", "encoder.hidden": 8}}] * 4
    assert len({folder for _, folder in would_train}) == 4
    folder, *titles = (out := capsys.readouterr().out).splitlines()
    assert folder == f"sweep: {would_train[0][1].parent.relative_to(Path.cwd())}"
    assert len(titles) == 4
    assert titles[1].startswith("run 1: ")
    assert "encoder.hidden=1" in out
    assert "dim" not in out


@pytest.mark.long
def test_a_sweep_is_checked_before_its_first_run(
    cli_plugin: Path, would_train: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    err = fails(capsys, "train", "experiment=d_small", "-m", "dim=1,2", "seed=1,-1")
    assert err == "toolkit train: seed=-1: must be at least 0\n"
    assert not would_train


@pytest.mark.long
def test_a_notice_is_told_once(cli_plugin: Path, would_train: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["train", "experiment=d_small", "encoder=d_enc", "quantizer=vq", "-m", "seed=1,2"]) == 0
    assert capsys.readouterr().err == ""
    (cli_plugin / "cli_plugin" / "conf" / "experiment" / "d_set.yaml").write_text(
        "# @package _global_\ndefaults: [d_small, _self_]\nquantizer: {hidden: 3}\n"
    )
    assert command.run(["train", "experiment=d_set", "quantizer=vq", "-m", "seed=1,2"]) == 0
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.long
def test_a_run_is_continued(cli_plugin: Path, would_train: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    assert command.run(["train", "experiment=d_small", "hydra.run.dir=a run"]) == 0
    config, folder = would_train.pop()
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert command.run(["train", "run=a run", "trainer.steps=5"]) == 0
    changed = {"name": "d_small", "instead_of": {"trainer.steps": 10000}}
    assert would_train[0][0] == {**config, "trainer": {**config["trainer"], "steps": 5}, "experiment": changed}
    assert would_train[0][1] == Path("a run")
    assert "several priors" in fails(capsys, "train", "run=a run", "-m")
    assert "nowhere" in fails(capsys, "train", "run=nowhere")


def test_cfg_job_prints_what_would_run(cli_plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    assert command.run(["train", "experiment=d_small", "--cfg", "job", "dataset.root=화자 1"]) == 0
    out = capsys.readouterr().out
    assert yaml.safe_load(out)["encoder"]["norm"] == "group"
    assert "화자 1" in out
    assert command.run(["train", "--cfg=job"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["dataset"] is None


@pytest.mark.long
def test_train_help_lists_groups_and_values(cli_plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["train", "--help", "experiment=d_small"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"encoder: .*d_enc, d_wrong", out)
    assert "norm: group" in out
    assert "quantizer/inner/inner" not in out


@pytest.mark.long
def test_config_dir_adds_experiments(
    cli_plugin: Path, would_train: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    home = Path("my conf") / "experiment"
    home.mkdir(parents=True)
    (home / "mine.yaml").write_text("# @package _global_\ndefaults: [d_small, _self_]\ndim: 5\n")
    assert command.run(["train", "--config-dir", "my conf", "experiment=mine"]) == 0
    assert would_train[0][0]["dim"] == 5
    assert would_train[0][0]["experiment"] == {"name": "mine", "instead_of": {}}
    assert "no such folder" in fails(capsys, "train", "--config-dir", "nowhere", "experiment=mine")


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--hepl"], "--hepl: … --help?"),
        (["--config-name=x"], "--config-name: "),
        (["--cfg"], "--cfg: … job, hydra, all"),
        (["--cfg", "jb"], "--cfg: … job, hydra, all"),
    ],
)
def test_flags_are_checked(cli_plugin: Path, capsys: pytest.CaptureFixture[str], flags: list[str], text: str) -> None:
    assert_names(fails(capsys, "train", "experiment=d_small", *flags), f"toolkit train: {text}")


@pytest.mark.long
@pytest.mark.parametrize("flags", [["--info"], ["--info", "plugins"], ["--cfg", "hydra"], ["--hydra-help"]])
@pytest.mark.few(2)
def test_hydras_own_flags_answer(cli_plugin: Path, capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    assert command.run(["train", "experiment=d_small", *flags]) == 0
    assert capsys.readouterr().out
