"""A softmax over levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from toolkit.device import in_float32, wide
from toolkit.entropy import EntropyCoder
from toolkit.likelihood import Distribution, Likelihood
from toolkit.nn.cross_entropy import cross_entropy
from toolkit.nn.noise import uniform
from toolkit.spec import DataSpec


@final
class CategoricalLikelihood(Likelihood):
    """Every number of x has a softmax over its levels; the paper's likelihood for bits per dim on CIFAR-10."""

    def __init__(self, data: DataSpec) -> None:
        super().__init__()
        self.data, self.levels = data, require_levels(data)
        self.channels = data.channels * self.levels

    def forward(self, parameters: Tensor) -> CategoricalDistribution:
        return CategoricalDistribution(parameters.unflatten(1, (self.levels, -1)), self.data)


@final
class CategoricalDistribution(Distribution):
    """logits ``(batch, levels, channels, *axes)``: the layout that ``cross_entropy`` takes without a copy.

    ``torch.distributions.Categorical`` needs two to three times the memory and computes its loss in bfloat16 under
    autocast.
    """

    def __init__(self, logits: Tensor, data: DataSpec) -> None:
        self.logits, self.data, self.given = logits, data, logits
        self.shape = tuple(logits.shape[2:])

    @property
    def mean(self) -> Tensor | None:
        """Expected x; None where the levels have no order."""
        if not self.data.ordered:
            return None
        values = self.data.scale(torch.arange(self.logits.shape[1], device=self.logits.device))
        with in_float32(self.logits.device):
            return torch.einsum("bl...,l->b...", self.logits.float().softmax(1), values.float())

    def log_prob(self, x: Tensor) -> Tensor:
        return -cross_entropy(self.logits, x).flatten(1).sum(1)

    def log_prob_by_position(self, x: Tensor) -> Tensor:
        return -cross_entropy(self.logits, x).sum(1)

    def sample(
        self,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        return choose(self.logits / temperature, generator)

    @torch.no_grad()
    def entropy_code(self, coder: EntropyCoder, x: Tensor | None = None) -> Tensor:
        with in_float32(self.logits.device):
            logits, levels = self.logits.flatten(2), self.logits.shape[1]
            return by_stretches(
                logits, x, self.shape, levels, lambda part, values: coder.code(part.float().softmax(1).mT, values)
            )


AT_ONCE = 1 << 22
"""Numbers computed at once while data is written or read."""


def by_stretches(
    parameters: Tensor,
    x: Tensor | None,
    shape: tuple[int, ...],
    cost: int,
    code: Callable[[Tensor, Tensor | None], Tensor],
) -> Tensor:
    """Independent numbers through an entropy coder, some at a time: x ``(batch, *shape)``, written or, if None, read.

    ``code`` takes the parameters ``(batch, any, some)`` of some numbers, and these ``(batch, some)`` or None, and
    returns them. ``cost``: how many numbers it computes of each.
    """
    batch, _, numbers = parameters.shape
    size = max(1, AT_ONCE // (batch * cost))
    coded = []
    for start in range(0, numbers, size):
        stretch = slice(start, start + size)
        values = None if x is None else x.flatten(1)[:, stretch].long()
        coded.append(code(parameters[:, :, stretch], values))
    return torch.cat(coded, 1).reshape(batch, *shape)


def choose(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """Indices sampled along axis 1, by the inverse of the cumulative distribution."""
    cumulative = logits.to(wide(logits.device)).softmax(1).cumsum(1)
    u = uniform(cumulative[:, -1:], generator, torch.float64) * cumulative[:, -1:]
    return (cumulative < u).sum(1)


def require_levels(data: DataSpec, cure: str = "choose likelihood=normal") -> int:
    """The data's levels; ValueError where it has none."""
    if data.levels is None:
        raise ValueError(f"a distribution over levels, but this data has none (it is real-valued): {cure}")
    return data.levels
