"""The interface of priors: distributions over codes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from toolkit.errors import ToolkitError
from toolkit.spec import CodeSpec


@dataclass(frozen=True)
class SamplingOptions:
    """How codes are drawn from a prior's probabilities. ToolkitError where nothing would be left to draw from."""

    temperature: float = 1.0
    """Below 1: likelier codes."""
    top_k: int | None = None
    """Draw from the k likeliest codes only."""
    top_p: float | None = None
    """Draw from the likeliest codes that hold this share only."""
    guidance: float = 1.0
    """Above 1: closer to the conditions (classifier-free guidance, Ho and Salimans 2022)."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ToolkitError(
                f"temperature={self.temperature}: give a number above 0 (top_k=1 takes the likeliest code)"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ToolkitError(f"top_k={self.top_k}: give 1 or more, or leave it out to keep all codes")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ToolkitError(f"top_p={self.top_p}: give a share above 0 and at most 1, or leave it out")


PLAIN = SamplingOptions()
"""As the prior has it."""


class Prior(nn.Module, ABC):
    """p(codes given conditions).

    May ask for ``code_spec: CodeSpec`` and ``conditions: tuple[Condition, ...]`` (those it is given).

    Laws, checked by toolkit.testing.PriorSuite:
      probabilities over all code maps of a tiny grid sum to one
      no code's probability depends on a later code
      sampling fits log_prob, and the same generator gives the same codes
      guidance 1.0 equals none
    """

    code_spec: CodeSpec

    tractable: ClassVar[bool] = True
    """Whether log_prob can be had."""

    @abstractmethod
    def log_prob(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        """Nats ``(batch,)`` of codes ``(batch, depth, *grid)``; NotImplementedError, saying why, if not tractable."""

    @abstractmethod
    def sample(
        self,
        n: int,
        conditions: Mapping[str, Tensor],
        sampling: SamplingOptions = PLAIN,
        *,
        prefix: Tensor | None = None,
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
