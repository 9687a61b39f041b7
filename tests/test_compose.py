"""Words to a plain, validated configuration, over a plugin written for the purpose."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from composing import CHOSEN, small
from messages import assert_names

from toolkit import registry
from toolkit.cli.config import groups, source
from toolkit.cli.config.compose import compose
from toolkit.options import RunOptions

pytestmark = pytest.mark.usefixtures("compositions")


def plain(value: Any) -> bool:
    if isinstance(value, dict):
        return type(value) is dict and all(type(k) is str and plain(v) for k, v in value.items())
    if isinstance(value, list):
        return type(value) is list and all(map(plain, value))
    return value is None or type(value) in (bool, int, float, str)


def test_a_configuration_is_plain_and_complete() -> None:
    composed = small()
    config = composed.values
    assert plain(config)
    assert list(config) == [
        *(field.name for field in dataclasses.fields(RunOptions)),
        *registry.KINDS,
        *("conditions", "trainer", "prior_trainer", "prior_dataset", "extra"),
    ]
    assert composed.experiment == "small"
    assert composed.notices == ()
    assert config["encoder"] == {"name": "c_enc", "hidden": 8, "strides": [2], "norm": "none", "level": 2}
    assert config["likelihood"] is None
    assert config["metric"] == {"c_met": {"name": "c_met", "share": 0.5, "path": "x"}}
    assert config["conditions"] == {"decoder": [], "prior": []}
    assert (config["dim"], config["stage"], config["prior_dataset"]) == (8, "all", {})
    assert config["trainer"]["betas"] == [0.9, 0.999]


def test_words_override_an_experiment_which_overrides_defaults() -> None:
    config = small("dim=16", "encoder.hidden=5", "encoder.norm=group", "trainer.steps=3").values
    assert (config["dim"], config["encoder"]["hidden"], config["encoder"]["norm"]) == (16, 5, "group")
    assert (config["trainer"]["steps"], config["prior_trainer"]["steps"]) == (3, 10000)
    assert config["quantizer"]["size"] == 24


def test_without_an_experiment_every_part_is_chosen_by_name() -> None:
    assert compose(CHOSEN).values["quantizer"] == {"name": "c_plain", "size": 16, "rate": 0.5}
    assert compose(CHOSEN).experiment is None


def test_both_spellings_of_a_nested_part_are_the_same() -> None:
    spelt = small("quantizer=c_stack", "quantizer.inner.name=c_other", "quantizer.inner.size=3").values
    grouped = small("quantizer=c_stack", "quantizer/inner=c_other", "quantizer.inner.size=3").values
    assert spelt == grouped
    assert spelt["quantizer"] == {
        "name": "c_stack",
        "inner": {"name": "c_other", "size": 3, "decay": 0.9},
        "depth": 2,
    }


def test_nesting_has_no_end() -> None:
    words = ["quantizer=c_stack", "quantizer.inner.name=c_stack", "quantizer.inner.inner.name=c_few"]
    config = small(*words, "quantizer.inner.inner.levels=[7]").values
    assert config["quantizer"]["inner"]["inner"] == {"name": "c_few", "levels": [7]}


def test_a_preset_chooses_an_inner_part_and_survives_swaps() -> None:
    composed = compose(["experiment=preset"])
    assert composed.values["quantizer"] == {
        "name": "c_stack",
        "inner": {"name": "c_other", "size": 48, "decay": 0.9},
        "depth": 2,
    }
    assert compose(["experiment=preset", "quantizer=c_few"]).values["quantizer"]["name"] == "c_few"


def test_groups_are_listed_one_level_deep_and_resolved_at_any() -> None:
    assert groups.kind_of("quantizer/inner/inner/inner") == "quantizer"
    assert groups.kind_of("quantizer/outer") is None
    assert groups.kind_of("encoder/inner") is None
    listed = source.RegistrySource("registry", "toolkit://registry").list
    assert "inner" in listed("quantizer", None)
    assert "inner" not in listed("quantizer/inner", None)


def test_what_a_swapped_away_part_was_told_is_dropped_with_one_line() -> None:
    composed = small("quantizer=c_few")
    assert composed.values["quantizer"] == {"name": "c_few", "levels": [8, 5]}
    [notice] = composed.notices
    assert_names(notice, "note: quantizer=c_few … size, rate … quantizer=c_plain")


def test_an_option_that_both_parts_have_is_kept() -> None:
    composed = small("quantizer=c_other")
    assert composed.values["quantizer"]["size"] == 24
    [notice] = composed.notices
    assert_names(notice, "note: quantizer=c_other … rate … quantizer=c_plain")


def test_metrics_are_a_list_of_parts_with_options() -> None:
    config = small("metric=[c_met,c_met2]", "metric.c_met2.share=0.75").values
    assert {name: part["share"] for name, part in config["metric"].items()} == {"c_met": 0.5, "c_met2": 0.75}
    assert small("metric=[]").values["metric"] == {}
    assert list(small("metric=c_met2").values["metric"]) == ["c_met2"]


def test_a_trainer_has_presets() -> None:
    assert small("trainer=c_long").values["trainer"]["steps"] == 77


def test_null_takes_a_part_away() -> None:
    assert small("prior=null").values["prior"] is None
    assert small("likelihood=null").values["likelihood"] is None


def test_the_priors_stage_may_read_the_dataset_otherwise() -> None:
    config = small("prior_dataset.crop=64", "prior_dataset.root=/a b").values
    assert config["prior_dataset"] == {"crop": 64, "root": "/a b"}
    assert config["dataset"]["crop"] == 8


def test_a_folder_adds_experiments(tmp_path: Path) -> None:
    home = tmp_path / "my files (1)"
    (home / "experiment").mkdir(parents=True)
    text = "# @package _global_\ndefaults: [small, _self_]\ndim: 5\n"
    (home / "experiment" / "mine.yaml").write_text(text)
    assert compose(["experiment=mine"], folder=str(home)).values["dim"] == 5
