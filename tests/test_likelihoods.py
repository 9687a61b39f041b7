"""The likelihoods of the core, each with its equation."""

from __future__ import annotations

from collections.abc import Iterator
from math import log, pi
from typing import ClassVar

import pytest
import torch

from toolkit.likelihood import Likelihood
from toolkit.likelihoods.categorical import CategoricalLikelihood
from toolkit.likelihoods.logistic import LogisticLikelihood
from toolkit.likelihoods.normal import NormalLikelihood
from toolkit.spec import DataSpec
from toolkit.testing.likelihood import LikelihoodSuite
from toolkit.testing.parts import random_data
from toolkit.testing.tape import Tape

REAL = DataSpec(2, (3, 4), variance=0.25)
BYTES = DataSpec(2, (3, 4), levels=256, variance=0.25)


class TestCategorical(LikelihoodSuite):
    def make(self, data: DataSpec) -> Likelihood:
        return CategoricalLikelihood(data)


class TestCategoricalOverUnordered(TestCategorical):
    def data(self, channels: int = 2, *axes: int) -> DataSpec:
        return DataSpec(channels, axes or (3, 4), levels=5, ordered=False)

    def test_it_has_no_mean(self) -> None:
        assert self.distribution(self.data(), 2).mean is None


class TestLogistic(LikelihoodSuite):
    def make(self, data: DataSpec) -> Likelihood:
        return LogisticLikelihood(data, mixtures=3)


class TestLogisticOverBytes(TestLogistic):
    levels: ClassVar[int | None] = 256


class TestNormal(LikelihoodSuite):
    levels: ClassVar[int | None] = None

    def make(self, data: DataSpec) -> Likelihood:
        return NormalLikelihood(data)


class TestLearnedNormal(TestNormal):
    def make(self, data: DataSpec) -> Likelihood:
        return NormalLikelihood(data, learned=True)


def test_numbers_of_many_levels_cost_what_log_prob_says() -> None:
    """Digit by digit, each where the logistics are a few levels wide, and where no double precision is left."""
    data, n = DataSpec(1, (30,), 1 << 16), 4
    means = torch.rand(n, 3, 30, generator=torch.Generator().manual_seed(0)) * 1.8 - 0.9
    parameters = torch.cat([torch.zeros_like(means), means, torch.full_like(means, -9.0)], 1)
    distribution = LogisticLikelihood(data, mixtures=3)(parameters)
    x, tape = distribution.sample(torch.Generator().manual_seed(1)), Tape()
    assert torch.equal(distribution.entropy_code(tape, x), x)
    assert {entry.probs.shape[2] for entry in tape.entries if isinstance(entry.probs, torch.Tensor)} == {256}
    torch.testing.assert_close(tape.nats(), -distribution.log_prob(x).double(), atol=1e-2, rtol=1e-3)
    assert torch.equal(distribution.entropy_code(tape.rewound()), x)
    far, tape = torch.where(x < 1 << 15, (1 << 16) - 1, 0), Tape()
    assert torch.equal(distribution.entropy_code(tape, far), far)
    assert torch.equal(distribution.entropy_code(tape.rewound()), far)
    assert tape.nats().isfinite().all()


def test_logistics_of_many_levels_may_be_as_narrow_as_one() -> None:
    """Of 16 bits as of 8: nearly all of the probability on the level at the mean."""
    for levels in (256, 1 << 16):
        data = DataSpec(1, (1,), levels)
        middle = data.scale(torch.full((1, 1), levels // 2))
        parameters = torch.cat([torch.zeros(1, 1), middle, torch.full((1, 1), -30.0)], 1).unsqueeze(2)
        nats = -LogisticLikelihood(data, mixtures=1)(parameters).log_prob(torch.full((1, 1, 1), levels // 2))
        assert nats < 0.1


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# -- categorical


def test_categorical_is_the_softmax() -> None:
    parameters, x = torch.randn(3, 2 * 256, 3, 4, dtype=torch.float64), random_data(BYTES, 3)
    by_hand = torch.zeros(3, dtype=torch.float64)
    shares = parameters.view(3, 256, 2, 3, 4).softmax(1)
    for example in range(3):
        for place in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(4)).tolist():
            by_hand[example] += shares[(example, int(x[(example, *place)]), *place)].log()
    torch.testing.assert_close(CategoricalLikelihood(BYTES)(parameters).log_prob(x), by_hand)


def test_the_categorical_mean_is_the_expectation() -> None:
    data = DataSpec(1, (1,), levels=3)
    shares = torch.tensor([0.2, 0.3, 0.5])
    mean = CategoricalLikelihood(data)(shares.log().view(1, 3, 1)).mean
    torch.testing.assert_close(mean, torch.tensor([[[-0.2 + 0.5]]]))


def test_an_even_softmax_costs_eight_bits() -> None:
    nats = -CategoricalLikelihood(BYTES)(torch.zeros(1, 512, 3, 4)).log_prob(random_data(BYTES, 1))
    torch.testing.assert_close(nats / (BYTES.dims * log(2)), torch.tensor([8.0]))


# -- logistic


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("levels", [2, 7, 256])
def test_logistic_is_a_difference_of_cumulatives(levels: int) -> None:
    data, mixtures = DataSpec(1, (5,), levels=levels), 3
    parameters = torch.randn(4, 3 * mixtures, 5)
    weights, means, scales = (p.unsqueeze(2) for p in parameters.view(4, 3, mixtures, 5).unbind(1))
    x = random_data(data, 4)
    values = (2 * x / (levels - 1) - 1).unsqueeze(1)
    edge = 1 / (levels - 1)
    above = ((values + edge - means) / scales.exp()).sigmoid()
    below = ((values - edge - means) / scales.exp()).sigmoid()
    above = torch.where(x.unsqueeze(1) == levels - 1, 1.0, above)
    below = torch.where(x.unsqueeze(1) == 0, 0.0, below)
    expected = (weights.softmax(1) * (above - below)).sum(1).log().flatten(1).sum(1)
    likelihood = LogisticLikelihood(data, mixtures=mixtures)
    torch.testing.assert_close(likelihood(parameters).log_prob(x), expected)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("scale", [-20.0, -7.0, 0.0, 20.0, 100.0])
@pytest.mark.parametrize("mean", [-50.0, -1.0, 0.001, 1.0])
def test_logistic_sums_to_one_at_every_width(mean: float, scale: float) -> None:
    data = DataSpec(1, (1,), levels=256)
    parameters = torch.tensor([0.0, mean, scale]).view(1, 3, 1).expand(256, -1, -1)
    nats = LogisticLikelihood(data, mixtures=1)(parameters).log_prob(torch.arange(256).view(-1, 1, 1))
    torch.testing.assert_close(nats.exp().sum().item(), 1.0, atol=1e-10, rtol=0)


@pytest.mark.parametrize("scale", [-1e4, -7.0, 7.0, 1e4])
@pytest.mark.parametrize("mean", [-1e4, 0.0, 0.5, 1e4])
def test_far_off_logistics_still_know_the_way_back(mean: float, scale: float) -> None:
    data = DataSpec(1, (1,), levels=256)
    parameters = torch.tensor([0.0, mean, scale]).view(1, 3, 1).expand(3, -1, -1).clone().requires_grad_()
    x = torch.tensor([0, 100, 255]).view(-1, 1, 1)
    nats = LogisticLikelihood(data, mixtures=1)(parameters).log_prob(x)
    nats.sum().backward()
    assert nats.isfinite().all()
    assert parameters.grad is not None
    assert parameters.grad.isfinite().all()
    if mean > 1 and scale < 20:
        assert (parameters.grad[:2, 1] < 0).all()


# -- normal


def test_normal_is_torchs() -> None:
    mean, x = torch.randn(5, *REAL.shape), random_data(REAL, 5)
    expected = torch.distributions.Normal(mean, 0.3).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(NormalLikelihood(REAL, scale=0.3)(mean).log_prob(x), expected)


def test_normal_scales_levels() -> None:
    mean, x = torch.randn(5, *BYTES.shape), random_data(BYTES, 5)
    expected = torch.distributions.Normal(mean, 0.3).log_prob(x / 127.5 - 1).flatten(1).sum(1)
    torch.testing.assert_close(NormalLikelihood(BYTES, scale=0.3)(mean).log_prob(x), expected)


def test_at_the_datas_scale_the_error_is_over_the_variance() -> None:
    data = DataSpec(3, (32, 32), variance=0.07)
    mean, x = torch.randn(4, *data.shape), random_data(data, 4)
    nmse = (mean - x).square().flatten(1).mean(1) / 0.07
    expected = 3072 / 2 * (nmse + log(2 * pi * 0.07))
    torch.testing.assert_close(-NormalLikelihood(data)(mean).log_prob(x), expected)


def test_a_learned_scale_finds_the_error() -> None:
    likelihood, x = NormalLikelihood(REAL, learned=True), 0.3 * torch.randn(64, *REAL.shape)
    optimizer = torch.optim.Adam(likelihood.parameters(), 0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (-likelihood(torch.zeros_like(x)).log_prob(x).mean()).backward()
        optimizer.step()
    torch.testing.assert_close(likelihood.log_scale.exp().item(), x.square().mean().sqrt().item(), rtol=1e-3, atol=0)


def test_only_a_density_says_so() -> None:
    assert NormalLikelihood(REAL)(torch.zeros(1, *REAL.shape)).density
    assert not CategoricalLikelihood(BYTES)(torch.zeros(1, 512, 3, 4)).density


# -- what they refuse


UNORDERED = DataSpec(1, (4,), levels=8, ordered=False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CategoricalLikelihood(REAL), "over levels.* likelihood=normal"),
        (lambda: LogisticLikelihood(REAL), "over levels.* likelihood=normal"),
        (lambda: LogisticLikelihood(UNORDERED), "unordered: choose categorical"),
        (lambda: LogisticLikelihood(BYTES, mixtures=0), "mixtures=0"),
        (lambda: NormalLikelihood(UNORDERED), "unordered: choose categorical"),
        (lambda: NormalLikelihood(DataSpec(1, (4,))), "scale=null.*variance"),
        (lambda: NormalLikelihood(REAL, scale=0.0), "scale=0"),
    ],
)
def test_data_of_the_wrong_kind_is_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make()
