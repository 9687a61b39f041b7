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
    """How codes are sampled from a prior's probabilities. ToolkitError where no code would be left to sample."""

    temperature: float = 1.0
    """Divides the logits; below 1: likelier codes."""
    top_k: int | None = None
    """Sample from the k likeliest codes only."""
    top_p: float | None = None
    """Sample from the fewest likeliest codes that together have this probability (nucleus sampling)."""
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
"""The prior's own distribution."""


class Prior(nn.Module, ABC):
    """p(codes given conditions).

    The constructor may ask for ``code_spec: CodeSpec`` and ``conditions: tuple[Condition, ...]`` (those it is given).

    Laws, checked by toolkit.testing.PriorSuite:
      probabilities over all code maps of a tiny grid sum to one
      no code's probability depends on a later code
      sampling fits log_prob, and the same generator gives the same codes
      guidance 1.0 changes nothing
    """

    code_spec: CodeSpec

    tractable: ClassVar[bool] = True
    """Whether log_prob can be computed."""

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

        ``prefix`` ``(n, depth, positions)`` fixes the first positions in raster order. ``generator`` is on the
        CPU, so that a seed gives the same codes on every device. ``progress`` is called with the number of finished
        positions.
        """

    def loss(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        """What training minimizes, ``(batch,)``."""
        return -self.log_prob(codes, conditions)

    def forward(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        return self.loss(codes, conditions)
