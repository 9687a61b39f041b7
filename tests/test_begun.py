"""What a run has otherwise than its experiment, as its configuration keeps it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from composing import CHOSEN, small

from toolkit.cli.config.begun import begun
from toolkit.cli.config.compose import compose
from toolkit.cli.config.reopen import reopen
from toolkit.config import Experiment, PartConfig, RunConfig, by_key
from toolkit.errors import ToolkitError
from toolkit.runs.folder import write_config
from toolkit.stages import run

pytestmark = pytest.mark.usefixtures("compositions")


def test_what_words_change_of_an_experiment_is_known() -> None:
    """Its own values, by key: of a part that they replace its name alone, without the options that go with it."""
    words = [
        "trainer.steps=3",
        "quantizer=c_stack",
        "quantizer.inner=c_other",
        "encoder.strides=[2]",
        "metric=[c_met2]",
    ]
    values = begun(small(*words).values, "small", words)
    own = {"quantizer": "c_plain", "metric.c_met": "c_met", "trainer.steps": 10000, "metric.c_met2": None}
    assert values["experiment"] == {"name": "small", "instead_of": own}
    assert RunConfig.read(values).values()["experiment"] == values["experiment"]
    assert begun(small().values, "small", [])["experiment"]["instead_of"] == {}
    assert "experiment" not in begun(compose(CHOSEN).values, None, CHOSEN)
    assert "experiment" not in begun(small().values, "gone", []), "one that cannot be composed has no values"


def test_a_run_that_goes_on_keeps_its_experiment_and_notes_what_changes() -> None:
    saved = begun(small("trainer.steps=3").values, "small", [])
    assert reopen(saved, []).values["experiment"] == saved["experiment"]
    again = reopen(saved, ["trainer.steps=5", "prior=c_pri", "trainer.batch_size=7"]).values
    own = {"prior": "uniform", "trainer.batch_size": 64, "trainer.steps": 10000}
    assert again["experiment"] == {"name": "small", "instead_of": own}
    assert "experiment" not in reopen(small().values, ["trainer.steps=5"]).values


def saved_of(*words: str) -> dict[str, Any]:
    """What the file of a run has that began with the experiment and these words."""
    return RunConfig.read(begun(small(*words).values, "small", words)).values()


def going_on(saved: dict[str, Any], *words: str) -> dict[str, Any]:
    """What is kept of the experiment when the run goes on."""
    own: dict[str, Any] = reopen(saved, list(words)).values["experiment"]["instead_of"]
    return own


def test_of_a_part_that_was_replaced_only_the_name_is_kept() -> None:
    """Its options before and after are no values of the experiment's."""
    replaced = reopen(saved_of(), ["prior=c_pri"]).values
    assert going_on(replaced, "prior.layers=7") == {"prior": "uniform"}
    changed = reopen(saved_of(), ["metric.c_met.share=0.25"]).values
    assert changed["experiment"]["instead_of"] == {"metric.c_met.share": 0.5}
    assert going_on(changed, "metric=[c_met2]") == {"metric.c_met": "c_met", "metric.c_met2": None}


def test_what_a_continuation_adds_is_a_change() -> None:
    """Though the saved file has nothing in its place."""
    saved = saved_of()
    assert going_on(saved, "metric=[c_met,c_met2]") == {"metric.c_met2": None}
    assert going_on(saved, "logger=[csv]") == {"logger.csv": None}
    words = ["extra.name=mine", "prior_dataset.crop=4", "name=first", "tags=[a]"]
    assert going_on(saved, *words) == dict.fromkeys(word.partition("=")[0] for word in words)


def test_what_the_core_adds_or_removes_is_no_change() -> None:
    saved = saved_of()
    trainer = {key: value for key, value in saved["trainer"].items() if key != "floor"}
    other = {**saved, "trainer": {**trainer, "gone": 3}, "encoder": {**saved["encoder"], "gone": 4}}
    assert going_on(other) == {}
    assert going_on(other, "trainer.floor=0.5") == {"trainer.floor": None}


def test_an_experiment_alone_makes_no_other_configuration(tmp_path: Path) -> None:
    """What differs in no value is not written again."""
    config = RunConfig.read(saved_of())
    write_config(tmp_path, config)
    write_config(tmp_path, replace(config, experiment=Experiment("small", {"trainer.allow_changed_data": False})))
    write_config(tmp_path, replace(config, experiment=None))
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
    write_config(tmp_path, replace(config, seed=7))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_training_notes_what_a_program_has_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it read is known; what was replaced since, too, and what is as in the experiment again is no change."""
    trained = list[RunConfig]()
    monkeypatch.setattr(run, "_train", lambda config, *_: trained.append(config))
    config = RunConfig.read(saved_of("trainer.steps=3", "trainer.batch_size=7"))
    other = replace(
        config, seed=5, trainer=replace(config.trainer, batch_size=64), prior=PartConfig("c_pri", {"layers": 3})
    )
    for one in (config, other, replace(other, seed=0)):
        run.train(one, tmp_path / "run")
    own = {"trainer.steps": 10000}
    noted = [one.experiment.instead_of for one in trained if one.experiment]
    assert noted == [
        own | {"trainer.batch_size": 64},
        own | {"prior": "uniform", "seed": 0},
        own | {"prior": "uniform"},
    ]
    assert trained == [config, other, replace(other, seed=0)]


def test_a_name_below_extra_is_the_users() -> None:
    values = {
        "extra": {"name": "a", "cat": {"name": "b"}},
        "name": "c",
        "decoder": {"name": "d", "extra": {"name": "e"}},
    }
    by_keys = {"extra.name": "a", "extra.cat.name": "b", "name": "c", "decoder": "d", "decoder.extra": "e"}
    assert by_key(values) == by_keys


@pytest.mark.parametrize("value", ["small", {"name": 3}, {"name": "small"}, {"name": "small", "instead_of": [1]}])
def test_an_experiment_of_another_form_is_refused(value: Any) -> None:
    with pytest.raises(ToolkitError, match=r"here: experiment is not"):
        Experiment.read(value, "here")
    with pytest.raises(ToolkitError, match=r"the saved configuration: experiment is not"):
        reopen({**small().values, "experiment": value}, [])
