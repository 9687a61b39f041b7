"""What an evaluation counts, against what can be worked out exactly."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import log
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from toolkit.autoencoder import Autoencoder
from toolkit.evaluation import Evaluation, evaluate_parts
from toolkit.metric import Metric
from toolkit.objective import Bound, Objective
from toolkit.objectives.elbo import ELBO
from toolkit.objectives.vimco import VIMCO
from toolkit.priors.uniform import UniformPrior
from toolkit.quantizer import Quantizer
from toolkit.quantizers.categorical import CategoricalQuantizer
from toolkit.quantizers.gaussian import GaussianQuantizer
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.spec import DataSpec
from toolkit.testing.parts import point_autoencoder

DATA = DataSpec(1, (2,), levels=3)
X = torch.tensor([[[0, 2]]])


class Skewed(UniformPrior):
    """Codes are independent, each with probabilities that are not all the same."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        shares = torch.arange(1.0, self.code_spec.codebook_sizes[0] + 1, dtype=torch.float64)
        self.log_shares = (shares / shares.sum()).log()

    def log_prob(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        return self.log_shares[codes].flatten(1).sum(1)


def model_of(quantizer: Quantizer) -> Autoencoder:
    torch.manual_seed(0)
    return point_autoencoder(DATA, quantizer=quantizer).double().eval()


def judged(quantizer: Quantizer, x: Tensor = X, priors: bool = False, objective: Objective | None = None) -> Evaluation:
    model = model_of(quantizer)
    found = {"skewed": Skewed(model.code_spec, ())} if priors else {}
    batches: Any = [SimpleNamespace(x=x, conditions={}, number=0, mask=None)]
    return evaluate_parts(objective or ELBO(), model, batches, (), found)


def test_one_hot_codes_cost_the_rate_exactly() -> None:
    made = judged(VectorQuantizer(4, codebook_size=7))
    assert made.code_nats["uniform"] == 2 * log(7)
    metrics = made.metrics_by_name()
    assert metrics["bits_per_dim"] == metrics["data_bits_per_dim"] + metrics["code_bits_per_dim"]


def test_a_posterior_costs_its_distance_from_the_prior() -> None:
    """E[-log p(codes)] - H(q) is KL(q || p), here by adding up all 25 code maps."""
    made = judged(CategoricalQuantizer(4, codebook_size=5), X.expand(20_000, 1, 2), priors=True)
    model = model_of(CategoricalQuantizer(4, codebook_size=5))
    prior, posterior = Skewed(model.code_spec, ()), model.posterior(X)
    codes = torch.tensor(list(product(range(5), repeat=2)))[:, None, None]  # (25, 1, 1, 2)
    log_q, log_p = posterior.log_prob(codes)[:, 0].detach(), prior.log_prob(codes[:, 0], {})
    for name, reference in (("uniform", torch.full_like(log_p, -2 * log(5))), ("skewed", log_p)):
        assert made.code_nats[name] == pytest.approx(float((log_q.exp() * (log_q - reference)).sum()), abs=0.01)
    assert made.code_nats["uniform"] < 2 * log(5)


def test_a_learned_prior_is_judged_by_one_draw() -> None:
    """Whatever the objective: its row is the single-draw bound, its data share that of the objective's own bound."""
    x = X.expand(20_000, 1, 2)
    one, many = (
        judged(CategoricalQuantizer(4, codebook_size=5), x, priors=True, objective=objective)
        for objective in (ELBO(), VIMCO(samples=5))
    )
    assert many.nll + many.code_nats["uniform"] < one.nll + one.code_nats["uniform"]
    assert many.nll + many.code_nats["skewed"] == pytest.approx(one.nll + one.code_nats["skewed"], abs=0.03)


def test_draws_are_the_same_at_every_call() -> None:
    first, second = (judged(CategoricalQuantizer(4, codebook_size=5), X.expand(50, 1, 2)) for _ in range(2))
    assert first.metrics_by_name() == second.metrics_by_name()


def test_evaluation_leaves_the_random_numbers_alone() -> None:
    model = model_of(CategoricalQuantizer(4, codebook_size=5))
    before = torch.get_rng_state()
    batches: Any = [SimpleNamespace(x=X, conditions={}, number=0, mask=None)]
    evaluate_parts(ELBO(), model, batches)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_continuous_bottleneck_is_measured_against_the_normal() -> None:
    made = judged(GaussianQuantizer(4))
    metrics = made.metrics_by_name()
    assert set(metrics["priors"]) == {"normal"}
    assert metrics["prior"] == "normal"
    assert not {"rate", "uniform_code_bits_per_dim"} & set(metrics)
    assert metrics["code_bits_per_dim"] == made.code_nats["normal"] / (2 * log(2)) > 0


class Followed(Metric):
    """Writes down what it is given."""

    fitted = True

    def __init__(self) -> None:
        self.given: list[tuple[str, int, dict[str, Any]]] = []

    def fit(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        self.given.append(("fit", len(x), dict(conditions)))

    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        self.given.append(("update", len(x), dict(conditions)))

    def compute(self) -> dict[str, float]:
        return {}


def test_a_fitted_metric_sees_training_examples_first() -> None:
    metric, batches = (
        Followed(),
        lambda n, known: [SimpleNamespace(x=X.expand(n, 1, 2), conditions=known, number=0, mask=None)],
    )
    training: Any = batches(3, {"kind": 1})
    measured: Any = batches(2, {"kind": 2})
    evaluate_parts(ELBO(), model_of(VectorQuantizer(4, codebook_size=7)), measured, [metric], training=training)
    assert metric.given == [("fit", 3, {"kind": 1}), ("update", 2, {"kind": 2})]


def test_no_training_example_is_read_for_metrics_that_are_not_fitted() -> None:
    def unread() -> Any:
        raise AssertionError
        yield

    evaluate_parts(ELBO(), model_of(VectorQuantizer(4, codebook_size=7)), [], training=unread())
