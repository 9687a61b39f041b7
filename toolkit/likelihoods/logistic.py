"""A discretized mixture of logistics."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor

from toolkit.device import in_float32
from toolkit.entropy import EntropyCoder
from toolkit.likelihood import Distribution, Likelihood
from toolkit.likelihoods.categorical import by_stretches, choose, require_levels
from toolkit.nn.noise import uniform
from toolkit.ranges import PositiveInt
from toolkit.spec import DataSpec

SMALLEST_SCALE = -7.0
"""Log scale at which a logistic is far narrower than one of 256 levels; of more levels, as much narrower."""
WHOLE = 1 << 12
"""Levels up to which a number is coded as it is; of more, digit by digit: two tables of hundreds are computed sooner
than one of thousands."""
DIGIT = 1 << 8
LEAST = 1e-200
"""Of a probability, so that some are left where all differences underflow."""

LARGEST_SCALE = 20.0
"""Log scale at which all levels but the outer ones have the same probability."""


@final
class LogisticLikelihood(Likelihood):
    """Every number of x is a mixture of logistics, integrated over its level (Salimans et al. 2017, eq. 2).

    The outer levels include the tails, so the levels' probabilities sum to one. Channels are independent given the
    decoder's output.

    Args:
        mixtures: logistics per number.
    """

    def __init__(self, data: DataSpec, *, mixtures: PositiveInt = 5) -> None:
        super().__init__()
        require_levels(data)
        if not data.ordered:
            raise ValueError("a distribution over ordered levels, but this data is unordered: choose categorical")
        if mixtures < 1:
            raise ValueError(f"mixtures={mixtures}: at least 1")
        self.data, self.mixtures = data, mixtures
        self.channels = 3 * mixtures * data.channels

    def forward(self, parameters: Tensor) -> LogisticDistribution:
        return LogisticDistribution(parameters.unflatten(1, (3, self.mixtures, -1)), self.data)


@final
class LogisticDistribution(Distribution):
    """parameters ``(batch, 3, mixtures, channels, *axes)``: log weights, means, log scales."""

    def __init__(self, parameters: Tensor, data: DataSpec) -> None:
        parameters = parameters if parameters.dtype == torch.float64 else parameters.float()
        self.given = parameters
        weights, self.means, scales = parameters.unbind(1)
        self.log_weights = weights.log_softmax(1)
        self.log_scales = scales.clamp(SMALLEST_SCALE - log(max(1, (data.levels or 1) / 256)), LARGEST_SCALE)
        self.data = data
        self.shape = tuple(self.means.shape[2:])

    @property
    def mean(self) -> Tensor:
        return (self.log_weights.exp() * self.means).sum(1).clamp(-1, 1)

    def log_prob(self, x: Tensor) -> Tensor:
        return self._log_probs(x).flatten(1).sum(1)

    def log_prob_by_position(self, x: Tensor) -> Tensor:
        return self._log_probs(x).sum(1)

    def _log_probs(self, x: Tensor) -> Tensor:
        """Of each number."""
        assert self.data.levels is not None
        half = 1 / (self.data.levels - 1)
        values = self.data.scale(x).to(self.means.dtype).unsqueeze(1)
        rate = (-self.log_scales).exp()
        above, below = (values + half - self.means) * rate, (values - half - self.means) * rate
        # log(sigmoid(above) - sigmoid(below)), written so that neither the difference nor the tails underflow
        width = torch.log(-torch.expm1(-2 * half * rate))
        middle = F.logsigmoid(above) + F.logsigmoid(-below) + width
        inside = torch.where(values < -1 + half, F.logsigmoid(above), middle)
        inside = torch.where(values > 1 - half, F.logsigmoid(-below), inside)
        return (self.log_weights + inside).logsumexp(1)

    def sample(
        self,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        chosen = choose(self.log_weights / temperature, generator).unsqueeze(1)
        mean, log_scale = (
            self.means.gather(1, chosen).squeeze(1),
            self.log_scales.gather(1, chosen).squeeze(1),
        )
        u = uniform(mean, generator)
        return self.data.unscale(mean + temperature * log_scale.exp() * (u.log() - (-u).log1p()))

    @torch.no_grad()
    def entropy_code(self, coder: EntropyCoder, x: Tensor | None = None) -> Tensor:
        levels, mixtures = self._levels, self.means.shape[1]
        with in_float32(self.means.device):
            parameters = torch.stack([self.log_weights, self.means, self.log_scales], 1).flatten(3).flatten(1, 2)
            at_once = levels if levels <= WHOLE else max(DIGIT, -(-levels // DIGIT))
            return by_stretches(
                parameters, x, self.shape, at_once * mixtures, lambda part, values: self._code(coder, part, values)
            )

    @property
    def _levels(self) -> int:
        assert self.data.levels is not None
        return self.data.levels

    def _code(self, coder: EntropyCoder, parameters: Tensor, values: Tensor | None) -> Tensor:
        """Some numbers ``(batch, some)``: as they are or, of many levels, their higher digit and the lower one given
        that, which cost as much together."""
        log_weights, means, log_scales = parameters.cpu().double().unflatten(1, (3, -1)).unsqueeze(2).unbind(1)
        mixture = _Mixture(log_weights.exp(), means, (-log_scales).exp(), self._levels)
        start = torch.zeros(len(means), means.shape[3], dtype=torch.int64)
        if self._levels <= WHOLE:
            return coder.code(mixture.probs(start, 1, self._levels), values)
        digits = (None, None) if values is None else (values // DIGIT, values % DIGIT)
        high = coder.code(mixture.probs(start, DIGIT, -(-self._levels // DIGIT)), digits[0])
        return high * DIGIT + coder.code(mixture.probs(high * DIGIT, 1, DIGIT), digits[1])


class _Mixture(NamedTuple):
    """In double precision on the CPU, each ``(batch, 1, mixtures, some)``: differences of the cumulative distribution
    are small against it in the tails."""

    weights: Tensor
    means: Tensor
    rates: Tensor
    levels: int

    def probs(self, start: Tensor, width: int, count: int) -> Tensor:
        """``(batch, some, count)``: of as many runs of ``width`` levels, from ``start`` ``(batch, some)`` on, none of
        them 0."""
        edges = start.unsqueeze(1) + width * torch.arange(count + 1).unsqueeze(1)
        places = ((edges - 0.5) * (2 / (self.levels - 1)) - 1).double().unsqueeze(2)
        cumulative = (self.weights * ((places - self.means) * self.rates).sigmoid()).sum(2)
        cumulative = cumulative.masked_fill(edges <= 0, 0.0).masked_fill(edges >= self.levels, 1.0)
        return (cumulative.diff(dim=1).clamp(min=0) + LEAST).mT
