"""What a run has otherwise than its experiment, as its configuration keeps it."""

from __future__ import annotations

from typing import Any

import pytest
from composing import CHOSEN, small

from toolkit.cli.config.begun import begun
from toolkit.cli.config.compose import compose
from toolkit.cli.config.reopen import reopen
from toolkit.config import Experiment, RunConfig
from toolkit.errors import ToolkitError

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
    without = {**saved, "trainer": {key: value for key, value in saved["trainer"].items() if key != "floor"}}
    assert reopen(without, []).values["experiment"] == saved["experiment"], "an option that is new since is no change"


@pytest.mark.parametrize("value", ["small", {"name": 3}, {"name": "small"}, {"name": "small", "instead_of": [1]}])
def test_an_experiment_of_another_form_is_refused(value: Any) -> None:
    with pytest.raises(ToolkitError, match=r"here: experiment is not"):
        Experiment.read(value, "here")
