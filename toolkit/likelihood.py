"""The interface of likelihoods: p(x given the decoder's output)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from toolkit.entropy import EntropyCoder
from toolkit.fit import BrokenPartError, check_returned, example, where_provable
from toolkit.spec import DataSpec


class Distribution(ABC):
    """p(x given z) for a batch; what a decoder returns.

    Laws, checked by toolkit.testing.LikelihoodSuite:
      log_prob is float32 (or wider) under any autocast, and sums to one over all levels
      log_prob_by_position, where it is defined, sums to log_prob
      samples fit log_prob
      entropy coding costs what log_prob says, and gives x back
    """

    shape: tuple[int, ...]
    """Shape of one example, ``(channels, *axes)``."""

    mean_is_free: bool = False
    """Whether ``mean`` costs nothing to compute, so that training measures it at every step."""

    density: bool = False
    """True for a density over real numbers, which has no bits per dim."""

    given: Tensor | None = None
    """What the decoder gave, ``(batch, …)``, of which log_prob and mean are functions; None: the mean."""

    @property
    @abstractmethod
    def mean(self) -> Tensor | None:
        """Expected x on the scale of ``DataSpec.scale``, ``(batch, channels, *axes)``; None where it is undefined."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Nats ``(batch,)``, summed over an example's dims."""

    def log_prob_by_position(self, x: Tensor) -> Tensor:
        """Nats ``(batch, *axes)`` of each position, summed over channels, of which ``log_prob`` is the sum.

        That of a position depends on no later one of x. NotImplementedError where it is not defined.
        """
        raise NotImplementedError(f"{type(self).__name__} gives no probabilities by position")

    @abstractmethod
    def sample(
        self,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        """x as the data has it, levels or floats: ``(batch, channels, *axes)``.

        ``progress`` is called with the number of finished positions where they are sampled one after another.
        """

    def entropy_code(self, coder: EntropyCoder, x: Tensor | None = None) -> Tensor:
        """Writes x ``(batch, channels, *axes)`` where it is given, else reads it; returns it, int64.

        NotImplementedError, saying why, where there are no levels to write.
        """
        raise NotImplementedError(f"{type(self).__name__} gives no probabilities of levels")


class Likelihood(nn.Module, ABC):
    """Turns a decoder's output into a distribution over x. The constructor may ask for ``data: DataSpec``."""

    channels: int
    """Channels that the decoder must give at every position of x."""

    @abstractmethod
    def forward(self, parameters: Tensor) -> Distribution:
        """parameters ``(batch, channels, *axes)``."""

    if TYPE_CHECKING:
        __call__ = forward


def check_distribution(part: nn.Module, distribution: object, data: DataSpec) -> None:
    """BrokenPartError unless what a part gives is a distribution over two examples of the data."""
    if not isinstance(distribution, Distribution):
        given = "a tensor" if isinstance(distribution, Tensor) else type(distribution).__name__
        raise BrokenPartError(part, f"gives {given}, not a Distribution")
    if distribution.shape != data.shape:
        raise BrokenPartError(part, f"gives a distribution over {distribution.shape}, not {data.shape}")
    nats = distribution.log_prob(example(data, part))
    check_returned(part, "a log_prob", nats, (2,), "one number for each example")
    with where_provable(part, "in the mean"):
        if distribution.mean is not None:
            check_returned(part, "a mean", distribution.mean, (2, *data.shape))
