"""Words that led nowhere: each is honoured, or refused with what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from messages import assert_names
from toys import TILES, VQ

from toolkit import __main__ as command
from toolkit import registry
from toolkit.cli.config.compose import compose
from toolkit.cli.config.reopen import reopen
from toolkit.errors import ToolkitError
from toolkit.runs.folder import Run

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("toys")]

PLUGIN = """
[project]
name = "clash"
version = "3"
[project.entry-points."toolkit.GROUP"]
vq = "clash.parts:Part"
"""


def mistake(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert command.run(words) == 2
    out, err = capsys.readouterr()
    assert all(line.startswith("run: ") for line in out.splitlines())
    return err.partition(": ")[2]


def refused(*words: str) -> str:
    with pytest.raises(ToolkitError) as caught:
        compose([*TILES, *words])
    return str(caught.value)


# -- what there is to choose


def test_another_option_is_one_that_the_chosen_parts_have() -> None:
    assert_names(
        refused("prior=transformer", "prior.codebook_size=8"), "prior.codebook_size: … quantizer.codebook_size"
    )
    assert "did you mean" not in refused("prior=transformer", "prior.nothing_has_this=8")
    assert "encoder.width" not in refused("prior=transformer", "prior.width=32")
    assert_names(refused("encoder.learning_rate=1"), "encoder.learning_rate … trainer.learning_rate")


@pytest.mark.parametrize(
    ("word", "facts"),
    [
        ("conditions.prior=[kind,kind]", "conditions.prior=[kind,kind] … kind twice"),
        ("decoder={}", "decoder={}"),
        ("decoder=null", "no decoder chosen"),
        ("quantizer=null", "no quantizer chosen"),
    ],
)
def test_words_that_mean_nothing(word: str, facts: str) -> None:
    assert_names(refused(word), facts)


def test_null_is_none_of_a_list() -> None:
    assert compose([*TILES, "metric=null", "logger=null"]).values["metric"] == {}
    assert compose([*TILES, "prior=null", "stage=autoencoder"]).values["prior"] is None


def test_a_name_that_two_claim_says_whose_to_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text(PLUGIN.replace("GROUP", "quantizer"))
    monkeypatch.setenv(registry.PLUGIN_PATH, str(tmp_path))
    with pytest.raises(ToolkitError) as caught:
        registry.find("quantizer", "vq")
    assert_names(str(caught.value), f"quantizer=vq is claimed by … rename yours in {tmp_path / 'pyproject.toml'}")


def test_a_group_of_no_kind_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pyproject.toml").write_text(PLUGIN.replace("GROUP", "quantiser"))
    monkeypatch.setenv(registry.PLUGIN_PATH, str(tmp_path))
    assert "clash: its entry points toolkit.quantiser are of no kind (did you mean toolkit.quantizer" in "\n".join(
        registry.problems()
    )
    assert command.run(["plugins"]) == 0
    assert "toolkit.quantiser" in capsys.readouterr().out


# -- flags


def test_a_sweep_can_be_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["train", *TILES, "-m", "seed=1,2", "dim=4,8", "--cfg", "job"]) == 0
    documents = capsys.readouterr().out.split("# run ")
    runs = [yaml.safe_load(text.partition("\n")[2]) for text in documents[1:]]
    assert [(run["seed"], run["dim"]) for run in runs] == [(1, 4), (1, 8), (2, 4), (2, 8)]
    assert documents[1].startswith("0: ")
    assert command.run(["train", *TILES, "-m", "seed=1,2", "--cfg", "hydra"]) == 0
    assert "sweeper:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "facts"),
    [
        ("stage", "stage … KEY=VALUE"),
        ("objective=\u2028", r"objective=\u2028 … cannot be read"),
        ("dim=range(0)", "dim=range(0): this has no values"),
        ("dim=range(0,1,0)", "dim=range(0,1,0): its values cannot be listed"),
        ("dim=range(0,1000000000)", "dim=range(0,1000000000): this has too many values"),
        ("prior=glob(nope*)", "prior=glob(nope*): this has no values"),
        ("dim=glob(*)", "dim=glob(*): this has no values"),
    ],
)
def test_a_sweep_that_is_none(capsys: pytest.CaptureFixture[str], toy_run: Path, word: str, facts: str) -> None:
    assert_names(mistake(capsys, "train", *TILES, "-m", word), facts)
    assert_names(mistake(capsys, "train", *TILES, "-m", "--cfg", "job", word), facts)
    if word.startswith("prior=") or "=" not in word:
        assert_names(mistake(capsys, "train", f"run={toy_run}", "-m", word), facts)


def test_a_sweep_over_all_that_a_pattern_matches(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["train", *TILES, "-m", "prior=glob(p*)", "--cfg", "job"]) == 0
    assert "prior=pixelcnn" in capsys.readouterr().out


def test_a_number_that_no_float_can_hold() -> None:
    assert_names(refused(f"trainer.clip={'9' * 400}"), "trainer.clip … finite number")


@pytest.mark.parametrize("words", [["compare", "RUN"], ["sample", "run=RUN"], ["reconstruct", "run=RUN"]])
def test_a_folder_that_is_a_file_is_refused_before_the_work(
    capsys: pytest.CaptureFixture[str], toy_run: Path, tmp_path: Path, words: list[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    before = {path for path in toy_run.rglob("*") if path.is_file()}
    for out in (tmp_path / "file", tmp_path / "file" / "inside"):
        given = [word.replace("RUN", str(toy_run)) for word in words]
        assert_names(mistake(capsys, *given, f"out={out}"), f"out={out}: {tmp_path / 'file'} is a file")
    assert {path for path in toy_run.rglob("*") if path.is_file()} == before


def test_a_part_of_the_configuration_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["train", *TILES, "--cfg", "job", "-p", "trainer"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["batch_size"] > 0
    assert command.run(["train", *TILES, *VQ, "--cfg", "job", "-p", "quantizer.codebook_size"]) == 0
    assert capsys.readouterr().out == "16\n"
    assert_names(mistake(capsys, "train", *TILES, "--cfg", "job", "-p", "trainr"), "--package trainr … trainer")


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (["train", *TILES, "-p", "trainer"], "--package … --cfg"),
        (["train", *TILES, "--resolve"], "--resolve … --cfg"),
        (["check", *TILES, "-m"], "--multirun"),
        (["check", *TILES, "--cfg", "job"], "--cfg"),
        (["check", "run=nowhere", "--config-dir", "."], "--config-dir … run=DIR"),
    ],
)
def test_flags_that_would_do_nothing(capsys: pytest.CaptureFixture[str], words: list[str], facts: str) -> None:
    assert_names(mistake(capsys, *words), facts)


# -- runs


def test_a_run_keeps_what_it_began_with(toy_run: Path) -> None:
    saved = Run(toy_run).config_values()
    with pytest.raises(ToolkitError, match=r"init='?other'?: a saved run keeps its init of null"):
        reopen(saved, ["init=other"])
    assert reopen(saved, ["init=null"]).values["init"] is None
    assert reopen({**saved, "init": "other"}, ["init=other"]).values["init"] == "other"


def test_files_are_reconstructed_without_the_dataset(toy_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_names(mistake(capsys, "reconstruct", f"run={toy_run}", "x.json", "dataset.nope=1"), "dataset.nope")


def test_the_prior_of_a_run_without_a_checkpoint(
    toy_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_bytes((toy_run / "config.yaml").read_bytes())
    assert_names(mistake(capsys, "train", f"run={tmp_path}", "stage=prior"), "stage=prior … no checkpoint … stage=all")


def test_the_home_folder_is_meant_by_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("toolkit.cli.job.train_run", lambda config, folder: folders.append(folder))
    assert command.run(["train", *TILES, "hydra.run.dir=~/my run"]) == 0
    assert folders == [tmp_path / "home" / "my run"]
    assert not (tmp_path / "~").exists()
