"""The interface of priors: distributions over codes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from toolkit.entropy import EntropyCoder
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
      entropy coding costs what log_prob says, and gives the codes back
      guidance 1.0 changes nothing
      where it takes padding: an example in padding costs what it does alone
    """

    code_spec: CodeSpec

    tractable: bool = True
    """Whether log_prob can be computed."""

    takes_padding: bool = False
    """Whether no code's probability depends on one behind it along the grid's first axis, and there is a
    ``loss_by_position``: then examples of unequal lengths are padded to one batch."""

    portable: bool = False
    """Whether ``entropy_code`` has the same probabilities on every machine."""

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

    def entropy_code(
        self,
        coder: EntropyCoder,
        n: int,
        conditions: Mapping[str, Tensor],
        codes: Tensor | None = None,
        *,
        positions: int | None = None,
        depth: int | None = None,
        prefix: Tensor | None = None,
    ) -> Tensor:
        """Writes the codes of n examples where they are given, ``(n, depth, positions)`` in raster order; else reads
        them. Returns them.

        ``positions``: how many of the grid's first; ``depth``: how many of a position's first codes (None: all).
        ``prefix`` ``(n, depth, known)``: those of the first positions, which are not written, as who reads knows them.
        All codes of a position come before those of the next. NotImplementedError, saying why, where it cannot be done.
        """
        raise NotImplementedError(f"{type(self).__name__} gives no probabilities code by code")

    def loss(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        """What training minimizes, ``(batch,)``."""
        return -self.log_prob(codes, conditions)

    def blocks_in_order(self) -> Sequence[nn.Module]:
        """The modules that a pass of ``loss`` calls one after the other, once each: most of the weights.

        A prior that is sharded over ranks has one of them whole at a time, and one that computes activations again does
        it block by block. Empty: there are none, and it is sharded as one.
        """
        return ()

    def nats_by_position(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        """What each code costs ``(batch, depth, *grid)``, of which ``-log_prob`` is the sum; NotImplementedError where
        that is not defined."""
        raise NotImplementedError(f"{type(self).__name__} gives no probabilities code by code")

    def loss_by_position(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        """What each code adds to ``loss``, ``(batch, depth, *grid)``; as ``nats_by_position``."""
        return self.nats_by_position(codes, conditions)

    def forward(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        return self.loss(codes, conditions)
