"""A Gaussian with one scale."""

from __future__ import annotations

from collections.abc import Callable
from math import log, pi
from typing import final

import torch
from torch import Tensor, nn

from toolkit.likelihood import Distribution, Likelihood
from toolkit.nn.noise import uniform
from toolkit.ranges import Positive
from toolkit.spec import DataSpec


@final
class NormalLikelihood(Likelihood):
    """Independent Gaussians with one scale around the decoder's output, over x scaled to [-1, 1].

    A density: it has no bits per dim. At the data's own scale its loss is the error divided by the variance, the form
    in which VQ-VAEs are often published: ``nll = dims / 2 * (mse / variance + const)``.

    Args:
        scale: the standard deviation; null takes the data's own.
        learned: train the scale, one for all of x, from that start.
    """

    def __init__(self, data: DataSpec, *, scale: Positive | None = None, learned: bool = False) -> None:
        super().__init__()
        if not data.ordered:
            raise ValueError("a distribution over numbers, but this data is unordered: choose categorical")
        if scale is None and data.variance is None:
            raise ValueError("scale=null: this dataset states no variance: give a scale, say 0.5")
        if scale is not None and scale <= 0:
            raise ValueError(f"scale={scale}: a standard deviation must be above 0")
        self.data, self.channels = data, data.channels
        init = torch.tensor(scale if scale is not None else (data.variance or 1.0) ** 0.5).log()
        self.log_scale: Tensor
        if learned:
            self.log_scale = nn.Parameter(init)
        else:
            self.register_buffer("log_scale", init)

    def forward(self, parameters: Tensor) -> NormalDistribution:
        return NormalDistribution(parameters, self.log_scale, self.data)


@final
class NormalDistribution(Distribution):
    """mean ``(batch, channels, *axes)`` and one log standard deviation."""

    mean_is_free = True
    density = True

    def __init__(self, mean: Tensor, log_scale: Tensor, data: DataSpec) -> None:
        self._mean = mean if mean.dtype == torch.float64 else mean.float()
        self.log_scale, self.data = log_scale, data
        self.shape = tuple(mean.shape[1:])

    @property
    def mean(self) -> Tensor:
        return self._mean

    def log_prob(self, x: Tensor) -> Tensor:
        error = (self.data.scale(x) - self.mean).square().flatten(1)
        constant = error.shape[1] * (self.log_scale + 0.5 * log(2 * pi))
        return -0.5 * error.sum(1) * (-2 * self.log_scale).exp() - constant

    def log_prob_by_position(self, x: Tensor) -> Tensor:
        error = (self.data.scale(x) - self.mean).square()
        constant = error.shape[1] * (self.log_scale + 0.5 * log(2 * pi))
        return -0.5 * error.sum(1) * (-2 * self.log_scale).exp() - constant

    def sample(
        self,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        noise = torch.special.ndtri(uniform(self.mean, generator))
        return self.data.unscale(self.mean + temperature * self.log_scale.exp() * noise)
