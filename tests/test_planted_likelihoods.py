"""The suite of likelihoods catches what goes wrong in parts of its kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from planted import Delegating, Overconfident, assert_catches
from torch import Tensor

from toolkit.likelihood import Distribution, Likelihood
from toolkit.likelihoods.categorical import CategoricalLikelihood
from toolkit.spec import DataSpec
from toolkit.testing.likelihood import LikelihoodSuite


class LikelihoodCase(LikelihoodSuite):
    def __init__(self, distribution: type[Delegating] = Delegating) -> None:
        self.of = distribution

    def make(self, data: DataSpec) -> Likelihood:
        distribution = self.of

        class Broken(CategoricalLikelihood):  # type: ignore[misc]
            def forward(self, parameters: Tensor) -> Distribution:
                made = distribution(super().forward(parameters))
                made.data = data  # type: ignore[attr-defined]
                return made

        return Broken(data)


class MeanOverDims(Delegating):
    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x) / x[0].numel()


class MeanOverChannels(Delegating):
    def log_prob_by_position(self, x: Tensor) -> Tensor:
        return super().log_prob_by_position(x) / x.shape[1]


class AmongTheBatch(Delegating):
    def log_prob(self, x: Tensor) -> Tensor:
        nats = super().log_prob(x)
        return nats - nats.mean() + nats.mean().detach().round()


class OwnNoise(Delegating):
    def sample(
        self, generator: torch.Generator | None = None, temperature: float = 1.0, progress: Any = None
    ) -> Tensor:
        return super().sample(None, temperature)


class OneLevelUp(Delegating):
    def sample(self, *args: Any, **words: Any) -> Tensor:
        return (super().sample(*args, **words) + 1).clamp(max=6)


class AlwaysWarm(Delegating):
    def sample(
        self, generator: torch.Generator | None = None, temperature: float = 1.0, progress: Any = None
    ) -> Tensor:
        return super().sample(generator, 1.0)


class Scaled(Delegating):
    """Samples on the scale of [-1, 1], not in levels."""

    def sample(self, *args: Any, **words: Any) -> Tensor:
        return super().sample(*args, **words) / 3 - 1


class InLevels(Delegating):
    """A mean in levels, not on the scale of [-1, 1]."""

    @property
    def mean(self) -> Tensor | None:
        mean = super().mean
        return None if mean is None else (mean + 1) * 3


class Rounded(Delegating):
    """As precise as the parameters that it is given."""

    def log_prob(self, x: Tensor) -> Tensor:
        assert hasattr(self.inner, "logits")
        with torch.autocast("cpu", enabled=False):
            return self.inner.logits.log_softmax(1).gather(1, x.unsqueeze(1)).flatten(1).sum(1)


class LogOfShares(Delegating):
    def log_prob(self, x: Tensor) -> Tensor:
        assert hasattr(self.inner, "logits")
        return self.inner.logits.softmax(1).gather(1, x.unsqueeze(1)).log().flatten(1).sum(1)


@pytest.mark.parametrize(
    ("broken", "law", "words"),
    [
        (Overconfident, "probabilities sum to one", {"scale": 1.0}),
        (MeanOverDims, "an example is the sum of its numbers", {}),
        (MeanOverChannels, "an example is the sum of its positions", {}),
        (AmongTheBatch, "examples do not influence one another", {}),
        (OwnNoise, "a seed decides the sample", {}),
        (OneLevelUp, "samples fit log prob", {}),
        (AlwaysWarm, "a low temperature gives the likeliest", {}),
        (Scaled, "samples are data", {}),
        (InLevels, "the mean is on the scale of the data", {}),
        (Rounded, "log prob is precise under autocast", {}),
        (LogOfShares, "gradients are finite at extreme parameters", {"scale": 1e4}),
    ],
)
def test_a_broken_likelihood_is_caught(broken: type[Delegating], law: str, words: dict[str, Any]) -> None:
    assert_catches(LikelihoodCase(), LikelihoodCase(broken), law, **words)
