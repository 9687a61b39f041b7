"""p(x given z) by a causal network over x itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from toolkit.causal.network import CausalNetwork
from toolkit.causal.sampling import sample
from toolkit.likelihood import Distribution
from toolkit.prior import PLAIN, SamplingOptions


@final
class AutoregressiveDistribution(Distribution):
    """Every number of x given all earlier ones: positions in raster order and, inside one, the channels in turn.

    The numbers of x stand to the network as codes of ``depth = channels`` do. It runs in ``log_prob``, all at once
    over the true x, and in ``sample``, position by position over what was drawn. There is no mean.
    """

    def __init__(
        self,
        network: CausalNetwork,
        shape: tuple[int, ...],
        context: Tensor,
        unconditional: Callable[[], Tensor],
        seen: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """``context``, a batch of it, says what z and the conditions tell of every position; see the network's trunk.
        ``unconditional`` makes the same without conditions, where guidance asks for it. ``seen``: x as ``log_prob``
        shows it to the network, where that is not as it is."""
        self.network, self.shape, self.seen = network, shape, seen
        self.context, self.unconditional = context, unconditional

    @property
    def mean(self) -> None:
        return None

    def log_prob(self, x: Tensor) -> Tensor:
        codes = x.long()
        return self.network.log_prob(codes, self.context, None if self.seen is None else self.seen(codes))

    def sample(
        self,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        return self.sample_with(SamplingOptions(temperature=temperature), generator=generator, progress=progress)

    def sample_with(
        self,
        sampling: SamplingOptions = PLAIN,
        *,
        prefix: Tensor | None = None,
        generator: torch.Generator | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        """``sample`` with all that a prior's sampling knows; ``prefix`` ``(batch, channels, positions)``."""
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
