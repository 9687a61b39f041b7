"""The laws of likelihoods, as tests that a plugin's tests inherit."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from toolkit.build import fit_likelihood
from toolkit.likelihood import Distribution, Likelihood
from toolkit.spec import DataSpec
from toolkit.testing.laws import PartLaws, as_assertion
from toolkit.testing.on_gpu import check_on_gpu
from toolkit.testing.parts import random_data
from toolkit.testing.tape import Tape

SAMPLES = 20_000


class LikelihoodSuite(PartLaws):
    """Subclass it as ``class TestMyLikelihood(LikelihoodSuite)`` and build one in ``make``.

    The laws are checked at random parameters, over one dim of x where they enumerate levels.
    """

    levels: ClassVar[int | None] = 7
    """Levels of the data; None for a density over data without levels."""

    @abstractmethod
    def make(self, data: DataSpec) -> Likelihood:
        """A likelihood over data with ``levels``, and a variance of 0.25."""

    def data(self, channels: int = 2, *axes: int) -> DataSpec:
        return DataSpec(channels, axes or (3, 4), levels=self.levels, variance=0.25)

    def distribution(self, data: DataSpec, n: int, scale: float = 1.0) -> Distribution:
        """A distribution over n examples, at the same parameters at every call."""
        likelihood = self.make(data)
        return likelihood(scale * _parameters(likelihood, data, n))

    def part(self) -> Likelihood:
        return self.make(self.data()).eval()

    def outcome(self, part: Likelihood) -> tuple[Tensor, ...]:
        data = self.data()
        distribution = part(_parameters(part, data, 3))
        nats = distribution.log_prob(random_data(data, 3)).detach()
        return (nats,) if distribution.mean is None else (nats, distribution.mean.detach())

    def test_it_has_the_shape_of_the_data(self) -> None:
        data = self.data()
        distribution = self.distribution(data, 5)
        assert distribution.shape == data.shape
        assert distribution.log_prob(random_data(data, 5)).shape == (5,)
        assert distribution.mean is None or distribution.mean.shape == (5, *data.shape)

    def test_its_results_fit_a_model(self) -> None:
        """What ``toolkit check`` asks of a distribution's shapes and types."""
        likelihood, data = self.make(self.data()), self.data()
        with as_assertion():
            fit_likelihood(likelihood, data)

    def test_samples_are_data(self) -> None:
        data = self.data()
        x = self.distribution(data, 50).sample(_generator())
        assert x.shape == (50, *data.shape)
        if data.levels is None:
            assert x.is_floating_point()
            assert x.abs().max() <= 1
        else:
            assert not x.is_floating_point()
            assert 0 <= int(x.min()) <= int(x.max()) < data.levels

    @pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
    def test_probabilities_sum_to_one(self, scale: float) -> None:
        data = self.data(1, 1)
        one = self.make(data)
        values = _outcomes(data)
        parameters = scale * _parameters(one, data, 1).expand(len(values), -1, -1)
        probs = one.double()(parameters).log_prob(values).exp()
        whole = probs.sum() if data.levels else torch.trapezoid(probs, values.flatten())
        # scale() computes in float32, so neighboring levels meet to its precision
        torch.testing.assert_close(whole.item(), 1.0, atol=1e-5, rtol=0)

    def test_an_example_is_the_sum_of_its_numbers(self) -> None:
        data, point = self.data(1, 3), self.data(1, 1)
        likelihood, x = self.make(data), random_data(data, 5)
        parameters = _parameters(likelihood, data, 5)
        apart = [likelihood(p).log_prob(v) for p, v in zip(parameters.split(1, 2), x.split(1, 2), strict=True)]
        assert self.make(point).channels == likelihood.channels
        torch.testing.assert_close(likelihood(parameters).log_prob(x), sum(apart, torch.zeros(5)))

    def test_an_example_is_the_sum_of_its_positions(self) -> None:
        data = self.data()
        distribution, x = self.distribution(data, 5), random_data(data, 5)
        try:
            nats = distribution.log_prob_by_position(x)
        except NotImplementedError:
            pytest.skip("it gives no probabilities by position")
        assert nats.shape == (5, *data.axes)
        torch.testing.assert_close(nats.flatten(1).sum(1), distribution.log_prob(x))

    def test_examples_do_not_influence_one_another(self) -> None:
        data = self.data()
        likelihood, x = self.make(data), random_data(data, 5)
        parameters = _parameters(likelihood, data, 5)
        alone = [likelihood(p).log_prob(v) for p, v in zip(parameters.split(1), x.split(1), strict=True)]
        torch.testing.assert_close(likelihood(parameters).log_prob(x), torch.cat(alone))

    def test_samples_fit_log_prob(self) -> None:
        data = self.data(1, 1)
        likelihood, values = self.make(data), _outcomes(data)
        parameters = _parameters(likelihood, data, 1)
        x = likelihood(parameters.expand(SAMPLES, -1, -1)).sample(_generator()).flatten()
        probs = likelihood(parameters.expand(len(values), -1, -1)).log_prob(values).exp().double()
        if data.levels is None:
            _assert_same_quantiles(x, values.flatten(), probs)
        else:
            _assert_fits(torch.bincount(x, minlength=data.levels), probs * SAMPLES)

    def test_entropy_coding_gives_x_back_and_costs_its_log_prob(self) -> None:
        data, tape = self.data(), Tape()
        distribution, x = self.distribution(data, 5), random_data(data, 5)
        try:
            distribution.entropy_code(tape, x)
        except NotImplementedError:
            pytest.skip("it gives no probabilities of levels")
        torch.testing.assert_close(tape.nats(), -distribution.log_prob(x).double(), atol=1e-3, rtol=1e-3)
        assert torch.equal(distribution.entropy_code(tape.rewound()), x.long())

    def test_a_seed_decides_the_sample(self) -> None:
        distribution = self.distribution(self.data(), 20)
        first, again, other = (distribution.sample(_generator(seed)) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_a_low_temperature_gives_the_likeliest(self) -> None:
        data = self.data(1, 1)
        distribution = self.distribution(data, 50)
        cold = [distribution.sample(_generator(seed), temperature=1e-6) for seed in range(2)]
        torch.testing.assert_close(cold[0], cold[1], atol=1e-4, rtol=0)

    def test_the_mean_is_on_the_scale_of_the_data(self) -> None:
        """In [-1, 1], like the samples' mean; parameters are small, so that little is clamped at the ends."""
        data = self.data()
        distribution = self.distribution(data, 1, scale=0.1)
        if distribution.mean is None:
            pytest.skip("it has no mean")
        many = self.make(data)(0.1 * _parameters(self.make(data), data, 1).expand(1000, *[-1] * (1 + data.rank)))
        average = data.scale(many.sample(_generator())).mean(0, keepdim=True)
        torch.testing.assert_close(distribution.mean.to(average.dtype), average, atol=0.3, rtol=0)

    def test_log_prob_is_precise_under_autocast(self) -> None:
        data = self.data()
        likelihood, x = self.make(data), random_data(data, 5)
        parameters = _parameters(likelihood, data, 5).bfloat16()
        with torch.autocast("cpu", torch.bfloat16):
            distribution = likelihood(parameters)
            nats, mean = distribution.log_prob(x), distribution.mean
        assert nats.dtype == torch.float32
        assert mean is None or mean.dtype == torch.float32
        torch.testing.assert_close(nats, likelihood(parameters.float()).log_prob(x))

    def test_it_computes_on_a_gpu(self) -> None:
        """Forward, backward and state lie there, and no step of training waits for it; on a stand-in for a GPU."""
        data = self.data()
        likelihood = self.make(data)

        def forward(likelihood: Likelihood, parameters: Tensor, x: Tensor) -> list[Tensor]:
            distribution = likelihood(parameters)
            sample = [] if likelihood.training else [distribution.sample(_generator())]
            mean = [] if distribution.mean is None else [distribution.mean]
            return [distribution.log_prob(x), *mean, *sample]

        check_on_gpu(likelihood, forward, _parameters(likelihood, data, 3).requires_grad_(), random_data(data, 3))

    @pytest.mark.parametrize("scale", [0.0, 1e-4, 1e2, 1e4])
    def test_gradients_are_finite_at_extreme_parameters(self, scale: float) -> None:
        data = self.data()
        likelihood = self.make(data)
        parameters = (scale * _parameters(likelihood, data, 20)).requires_grad_()
        nats = likelihood(parameters).log_prob(random_data(data, 20))
        nats.sum().backward()
        assert nats.isfinite().all()
        assert parameters.grad is not None
        assert parameters.grad.isfinite().all()


def _parameters(likelihood: Likelihood, data: DataSpec, n: int) -> Tensor:
    shape = (n, likelihood.channels, *data.axes)
    return torch.randn(shape, generator=_generator(3))


def _outcomes(data: DataSpec) -> Tensor:
    """Every level ``(levels, 1, 1)``, or points of the real line to integrate over."""
    if data.levels is not None:
        return torch.arange(data.levels).view(-1, 1, 1)
    return torch.linspace(-30, 30, 60_001).view(-1, 1, 1)


def _assert_same_quantiles(x: Tensor, values: Tensor, density: Tensor) -> None:
    """Samples, which are clamped to [-1, 1], against the integral of their density."""
    below = torch.cumulative_trapezoid(density, values.double())
    for at in (-0.9, -0.5, 0.0, 0.5, 0.9):
        expected = below[int((values < at).sum()) - 1].item()
        actual = (x < at).double().mean().item()
        spread = (expected * (1 - expected) / len(x)) ** 0.5
        assert abs(actual - expected) < 4 * spread + 1e-3, f"{actual} of the samples are below {at}, not {expected}"


def _assert_fits(counts: Tensor, expected: Tensor) -> None:
    """Pearson's chi-squared test; levels with an expected count below 5 are pooled."""
    rare = expected < 5
    counts = torch.cat([counts[~rare], counts[rare].sum()[None]]).double()
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    counts, expected = counts[expected > 0], expected[expected > 0]
    statistic = ((counts - expected).square() / expected).sum()
    freedom = torch.tensor((len(expected) - 1) / 2, dtype=torch.float64)
    assert torch.special.gammaincc(freedom, statistic / 2) > 1e-4, f"{counts.tolist()}, not {expected.tolist()}"


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
