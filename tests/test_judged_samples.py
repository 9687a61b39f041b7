"""Metrics of what a prior draws: asked for by number, under the conditions of the split."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
import torch
from messages import assert_names
from torch import Tensor
from toys import SMALL, VQ

import toolkit
from toolkit.__main__ import run as command
from toolkit.cli.config.compose import compose
from toolkit.errors import ToolkitError
from toolkit.metric import Metric
from toolkit.model import Model
from toolkit.objective import Bound
from toolkit.scoring import Measured, Samples, measure
from toolkit.stages.run import train

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("toys")]


@pytest.fixture(scope="module")
def model(toys: None, tmp_path_factory: pytest.TempPathFactory) -> Model:
    run = tmp_path_factory.mktemp("runs") / "run"
    train(compose([*SMALL, *VQ, "conditions.prior=[kind]", "prior_trainer.allow_collapsed=true"]).config, run)
    return toolkit.load(run, "cpu")


class Kept(Metric):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.x, self.kinds, self.updates = list[Tensor](), list[int](), 0

    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        assert not self.x
        self.updates += 1

    def update_samples(self, x: Tensor, conditions: Mapping[str, Tensor]) -> None:
        self.x.append(x)
        self.kinds += conditions["kind"].tolist()

    def compute(self) -> dict[str, float]:
        return {"sample_mean": float(torch.cat(self.x).double().mean())} if self.x else {}


def judged(model: Model, metric: Metric, n: int, examples: int | None = None, prior: str | None = None) -> Measured:
    return measure(model, model.dataset, [metric], "val", examples, 3, samples=Samples(n, prior))


def test_samples_have_the_conditions_of_the_split(model: Model) -> None:
    """In turn, from the first of its examples that are evaluated; and the figures are the same at every call."""
    metric, again = Kept(), Kept()
    values = judged(model, metric, 11, examples=5).metrics
    assert metric.updates == 2
    assert [len(x) for x in metric.x] == [3, 3, 3, 2]
    assert metric.kinds == [i % 5 % 3 for i in range(11)]
    assert not metric.x[0].is_floating_point()
    assert metric.x[0].shape[1:] == model.spec.shape
    judged(model, again, 11, examples=5)
    assert torch.equal(torch.cat(metric.x), torch.cat(again.x))
    stored = json.loads((model.run.results / "evaluation.json").read_text())
    assert stored["sample_mean"] == values["sample_mean"]
    assert (stored["samples"], stored["sampled_prior"], stored["examples"]) == (11, "pixelcnn", 5)


def test_without_samples_no_metric_is_asked(model: Model) -> None:
    metric = Kept()
    values = measure(model, model.dataset, [metric], "val").metrics
    assert not metric.x
    assert "samples" not in values


def test_samples_that_cannot_be_judged_are_refused(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["evaluate", f"run={model.run.path}", "samples=4"]) == 2
    assert_names(capsys.readouterr().err, "toolkit evaluate: samples=4: … metrics=[")
    assert command(["evaluate", f"run={model.run.path}", "samples=-4"]) == 2
    assert_names(capsys.readouterr().err, "toolkit evaluate: samples=-4: ")
    with pytest.raises(ToolkitError) as refusal:
        judged(model, Kept(), 4, prior="maskgit")
    assert_names(str(refusal.value), "prior=maskgit was not trained")
