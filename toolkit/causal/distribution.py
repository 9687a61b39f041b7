"""p(x given z) by a causal network over x."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from toolkit.causal.coding import entropy_code
from toolkit.causal.network import CausalNetwork
from toolkit.causal.sampling import sample
from toolkit.entropy import EntropyCoder
from toolkit.likelihood import Distribution
from toolkit.prior import PLAIN, SamplingOptions


@final
class AutoregressiveDistribution(Distribution):
    """Every number of x given all earlier ones: positions in raster order and, at each, the channels in order.

    To the network, x is codes of ``depth = channels``. It runs in ``log_prob``, over all of x at once, and in
    ``sample``, position by position over what was sampled so far. There is no mean.
    """

    def __init__(
        self,
        network: CausalNetwork,
        shape: tuple[int, ...],
        context: Tensor,
        unconditional: Callable[[], Tensor],
        seen: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """``context`` is z and the conditions at every position, of a batch; see ``Trunk.forward``. ``unconditional``
        computes the same without conditions, for guidance. ``seen`` maps x to what ``log_prob`` shows the network
        instead."""
        self.network, self.shape, self.seen = network, shape, seen
        self.context, self.unconditional = context, unconditional

    @property
    def mean(self) -> None:
        return None

    def log_prob(self, x: Tensor) -> Tensor:
        codes = x.long()
        return self.network.log_prob(codes, self.context, None if self.seen is None else self.seen(codes))

    def log_prob_by_position(self, x: Tensor) -> Tensor:
        codes = x.long()
        return -self.network.by_position(codes, self.context, None if self.seen is None else self.seen(codes)).sum(1)

    def sample(
        self,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        return self.sample_with(SamplingOptions(temperature=temperature), generator=generator, progress=progress)

    def entropy_code(self, coder: EntropyCoder, x: Tensor | None = None) -> Tensor:
        n, axes = len(self.context), self.shape[1:]
        coded: Tensor = entropy_code(self.network, coder, n, axes, x, context=self.context).unflatten(2, axes)
        return coded

    def sample_with(
        self,
        sampling: SamplingOptions = PLAIN,
        *,
        prefix: Tensor | None = None,
        generator: torch.Generator | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        """``sample`` with all of a prior's sampling options; ``prefix`` ``(batch, channels, positions)``."""
        return sample(
            self.network,
            len(self.context),
            self.shape[1:],
            sampling,
            context=self.context,
            unconditional=self.unconditional() if sampling.guidance != 1.0 else None,
            prefix=prefix,
            generator=generator,
            progress=progress,
        )
