"""The interface of priors: distributions over codes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from toolkit.spec import LatentSpec


class Prior(nn.Module, ABC):
    """p(codes given conditions).

    May ask for ``latent: LatentSpec`` and ``conditions: tuple[Condition, ...]`` (those it is given).

    Laws, checked by toolkit.testing.PriorSuite:
      probabilities over all code maps of a tiny grid sum to one
      no code's probability depends on a later code
      sampling fits log_prob, and the same generator gives the same codes
      guidance 1.0 equals none
    """

    latent: LatentSpec

    @abstractmethod
    def log_prob(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        """Nats ``(batch,)`` of codes ``(batch, depth, *grid)``; NotImplementedError where intractable."""

    @abstractmethod
    def sample(
        self,
        n: int,
        conditions: Mapping[str, Tensor],
        *,
        prefix: Tensor | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance: float = 1.0,
        generator: torch.Generator | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        """codes ``(n, depth, *grid)`` on the prior's device.

        ``prefix`` ``(n, depth, positions)`` fixes the first positions in raster order. ``generator`` lives on the
        CPU, so that a seed gives the same codes on every device. ``progress`` is told how many positions are done.
        """

    def loss(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        """What training minimises, ``(batch,)``."""
        return -self.log_prob(codes, conditions)

    def forward(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        return self.loss(codes, conditions)
