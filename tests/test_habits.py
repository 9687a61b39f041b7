"""Habits of Hydra's users: what they type, look at and call their runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from messages import assert_names
from toys import TILES, TOY, VQ

from toolkit import __main__ as command
from toolkit.cli.config.compose import compose
from toolkit.cli.config.reopen import reopen
from toolkit.cli.differences import labels
from toolkit.cli.sweeps import folder_title
from toolkit.config import RunConfig
from toolkit.errors import ToolkitError
from toolkit.runs.folder import Run, write_config

pytestmark = pytest.mark.long

WORDS = [*TILES, *VQ]


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_PLUGIN_PATH", str(TOY))


def test_a_run_keeps_its_name_its_tags_and_what_is_the_users_own(tmp_path: Path) -> None:
    config = compose([*WORDS, "name=first, try", "tags=[paper,small]", "extra.note='a, b'", "extra.at.n=3"]).config
    assert (config.name, config.tags) == ("first, try", ("paper", "small"))
    assert config.extra == {"note": "a, b", "at": {"n": 3}}
    write_config(tmp_path, config)
    run = Run.open(tmp_path)
    assert run.config() == config
    assert run.title == "first, try"
    again = reopen(run.config_values(), ["name=second", "extra.more=1.5"]).config
    assert (again.name, again.tags) == ("second", config.tags)
    assert again.extra == {**config.extra, "more": 1.5}


def test_a_run_without_them_has_the_file_that_it_had(tmp_path: Path) -> None:
    values = compose(WORDS).config.values()
    assert not {"name", "tags", "extra"} & values.keys()
    assert RunConfig.read(values) == compose(WORDS).config
    write_config(tmp_path / "run", compose(WORDS).config)
    assert Run.open(tmp_path / "run").title == "run"


def test_a_group_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra" / "cats.yaml").write_text("project: cats\n")
    config = compose([*WORDS, "extra=cats", "extra.note=x"], folder=str(tmp_path)).config
    assert config.extra == {"project": "cats", "note": "x"}
    assert compose([*WORDS, "extra=null"], folder=str(tmp_path)).config.extra == {}


def test_comparisons_call_runs_by_name_and_tags() -> None:
    configs = [{"seed": 0, "name": "a", "tags": ["x", "y"]}, {"seed": 1}]
    assert labels(configs, ["one", "two"]) == ["a: seed=0 (x, y)", "seed=1"]
    assert labels([{"name": "a"}, {"name": "b"}], ["a", "b"]) == ["a", "b"]


@pytest.mark.parametrize("word", ["name=''", f"name={'x' * 101}", "tags=['a\nb']", "tags=paper", "extra=5"])
def test_wrong_names_are_refused(word: str) -> None:
    with pytest.raises(ToolkitError, match=word.partition("=")[0]):
        compose([*WORDS, word])


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("lr=1e-3", "lr … did you mean trainer.learning_rate or prior_trainer.learning_rate?"),
        ("optimizer.lr=1e-3", "optimizer.lr … trainer.learning_rate"),
        ("batch_size=4", "batch_size … trainer.batch_size or prior_trainer.batch_size?"),
        ("max_steps=4", "max_steps … trainer.steps or prior_trainer.steps?"),
        ("optimizer=adamw", "optimizer … trainer.optimizer"),
        ("devices=2", "devices … trainer.ranks"),
        ("resume=outputs/x", "resume … run=DIR"),
        ("+note=hello", "note … extra.note"),
        ("+mine=hello", "mine … extra.note=VALUE"),
        ("trainer.lr=1e-3", "trainer.lr … learning_rate"),
        ("trainer.max_steps=3", "trainer.max_steps … steps"),
        ("+prior=transformer", "+prior=transformer … write prior=transformer"),
        ("+metric=codebook", "+metric=codebook … write metric=codebook"),
        ("+experiment=x", "+experiment=x … write experiment=x"),
    ],
)
def test_words_from_elsewhere_are_answered_in_ours(word: str, named: str) -> None:
    with pytest.raises(ToolkitError) as error:
        compose([*WORDS, word])
    assert_names(str(error.value), named)


@pytest.mark.parametrize(
    ("changed", "title"),
    [
        ("", "3"),
        ("quantizer=vq,trainer.steps=10", "3_quantizer=vq_steps=10"),
        ("quantizer/inner=ema", "3_inner=ema"),
        ("dataset.root=/my data/../(x)", "3_root=_my_data_.._x"),
        ("seed=0," * 40, f"3_{('seed=0_' * 40)[:80].rstrip('_.')}"),
        ("name=größe", "3_name=gr_e"),
    ],
)
def test_a_folder_of_a_sweep_says_what_is_its_own(changed: str, title: str) -> None:
    assert folder_title(3, changed) == title


def test_hydras_settings_are_shown_as_they_will_be(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The folder and the job's name, as long as nothing else is said."""
    where = (["experiment=image_shapes"], "outputs/image_shapes/"), (WORDS, "outputs/custom/")
    for words, folder in where:
        assert command.run(["train", *words, "--cfg", "hydra", "-p", "hydra.run"]) == 0
        assert yaml.safe_load(capsys.readouterr().out)["dir"].startswith(folder)
    assert command.run(["train", "experiment=image_shapes", "seed=0,1", "-m", "--cfg", "hydra", "-p", "hydra"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["sweep"]["dir"].startswith("outputs/image_shapes/")
    assert shown["job"]["name"] == "image_shapes"
    assert command.run(["train", *WORDS, f"hydra.run.dir={tmp_path}", "name=a b", "--cfg", "hydra", "-p", "hydra"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["run"]["dir"], shown["job"]["name"]) == (str(tmp_path), "a b")


@pytest.mark.long
def test_a_sweep_has_folders_by_changed_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*WORDS, "trainer.steps=0", "stage=autoencoder", "trainer.batch_size=4", "seed=0,1", "name=try"]
    assert command.run(["train", *words, "-m", "hydra.sweep.dir=swept"]) == 0
    assert sorted(path.parent.name for path in Path("swept").glob("*/config.yaml")) == ["0_seed=0", "1_seed=1"]
    assert command.run(["compare", "swept", "split=val", "examples=4"]) == 0
    rows = json.loads(Path("swept/compare.json").read_text())["runs"]
    assert sorted(row["label"] for row in rows) == ["try: seed=0", "try: seed=1"]
