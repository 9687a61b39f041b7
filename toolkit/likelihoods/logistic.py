"""A discretized mixture of logistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

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
"""Log scale at which a logistic is far narrower than one of 256 levels."""
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
        self.log_scales = scales.clamp(SMALLEST_SCALE, LARGEST_SCALE)
        self.data = data
        self.shape = tuple(self.means.shape[2:])

    @property
    def mean(self) -> Tensor:
        return (self.log_weights.exp() * self.means).sum(1).clamp(-1, 1)

    def log_prob(self, x: Tensor) -> Tensor:
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
        return (self.log_weights + inside).logsumexp(1).flatten(1).sum(1)

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
        with in_float32(self.means.device):
            mixtures = torch.stack([self.log_weights, self.means, self.log_scales], 1).flatten(3).flatten(1, 2)
            return by_stretches(coder, mixtures, x, self.shape, self._levels)

    def _levels(self, mixtures: Tensor) -> Tensor:
        """Probabilities ``(batch, levels, some)`` from ``(batch, 3 * mixtures, some)``: differences of the cumulative
        distribution, in double precision on the CPU, as they are small against it in the tails."""
        assert self.data.levels is not None
        log_weights, means, log_scales = mixtures.cpu().double().unflatten(1, (3, -1)).unsqueeze(2).unbind(1)
        edges = (torch.arange(1, self.data.levels, dtype=torch.float64) - 0.5) * (2 / (self.data.levels - 1)) - 1
        arguments = (edges[:, None, None] - means) * (-log_scales).exp()
        cumulative = (log_weights.exp() * arguments.sigmoid()).sum(2)
        return (
            F.pad(cumulative, (0, 0, 1, 0))
            .diff(dim=1, append=cumulative.new_ones(len(cumulative), 1, cumulative.shape[2]))
            .clamp(min=0)
        )
