"""The configuration of a saved run, and words that change it."""

from __future__ import annotations

from typing import Any

import pytest
from composing import small
from messages import assert_names

from toolkit.cli.config.reopen import reopen
from toolkit.errors import ToolkitError

pytestmark = pytest.mark.usefixtures("compositions")


def test_a_saved_configuration_comes_back_as_it_was() -> None:
    words = ["quantizer=c_stack", "quantizer.inner.name=c_other", "quantizer.inner.size=3"]
    saved = small(*words, "dataset.root=/a ${dim}[1]", "prior_dataset.crop=3", "metric.c_met.share=0.1").values
    saved["dataset"]["label"] = "${oc.env:HOME}"
    reopened = reopen(saved, [])
    assert reopened.values == saved
    assert reopened.notices == ()


def test_words_change_a_saved_configuration() -> None:
    saved = small().values
    words = ["trainer.steps=9", "stage=prior", "prior=c_pri", "prior.layers=5", "prior_dataset.crop=2"]
    config = reopen(saved, [*words, "metric=[c_met2]", "dataset.root=/new place", "encoder=c_enc", "dim=8"]).values
    assert (config["trainer"]["steps"], config["stage"]) == (9, "prior")
    assert config["prior"] == {"name": "c_pri", "layers": 5}
    assert config["prior_dataset"] == {"crop": 2}
    assert list(config["metric"]) == ["c_met2"]
    assert config["dataset"]["root"] == "/new place"
    assert config["encoder"] == saved["encoder"]
    assert config["quantizer"]["size"] == 24


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("encoder=c_gone", "encoder=c_gone: … saved run"),
        ("quantizer.inner.name=c_few", "quantizer/inner=c_few: … saved run"),
        ("experiment=small", "experiment=small: … saved run"),
        ("dim=9", "dim=9: … saved run … 8"),
        ("encoder.hidden=x", "encoder.hidden: … int … 'x'"),
        ("encoder.hiden=3", "encoder.hiden: encoder=c_enc"),
        ("trainer.stps=3", "trainer.stps: … steps?"),
        ("prior=c_prii", "prior=c_prii: … c_pri?"),
        ("trainer.steps=1,2", "trainer.steps=1,2: … saved run"),
        ("foo=1", "foo: "),
    ],
)
def test_a_saved_run_refuses_with_one_sentence(word: str, text: str) -> None:
    with pytest.raises(ToolkitError) as error:
        reopen(small("quantizer=c_stack").values, [word])
    assert_names(str(error.value), text)


def test_options_that_came_or_went_since_are_told() -> None:
    saved = small().values
    saved["encoder"]["old"] = 1
    del saved["encoder"]["hidden"]
    reopened = reopen(saved, [])
    gone, new = reopened.notices
    assert_names(gone, "note: encoder=c_enc: … old … ignored")
    assert_names(new, "note: encoder=c_enc: … hidden=8")
    assert reopened.values["encoder"]["hidden"] == 8


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"encoder": {"name": "c_enc", "hidden": "many"}}, "the saved configuration: "),
        ({"encoder": {"name": "c_left"}}, "encoder=c_left … not installed"),
        ({"encoder": {"name": "c_enc,x"}}, "encoder=c_enc,x … not installed"),
        ({"encoder": 3}, "the saved configuration … encoder"),
        ({"encoder": {"name": 3}}, "the saved configuration … encoder"),
        ({"metric": 3}, "metric: "),
        ({"trainer": 3}, "trainer: "),
    ],
)
def test_a_saved_configuration_that_was_tampered_with_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ToolkitError) as error:
        reopen({**small().values, **change}, [])
    assert_names(str(error.value), text)
