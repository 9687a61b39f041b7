"""The uniform prior."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log, prod
from typing import final

import torch
from torch import Tensor

from toolkit.causal.sampling import check_prefix, uniforms
from toolkit.prior import PLAIN, Prior, SamplingOptions
from toolkit.spec import CodeSpec, Condition


@final
class UniformPrior(Prior):
    """All code maps are equally likely, under any conditions; there is nothing to train.

    Its nats are the rate, the cost of codes before a prior is learned. Temperature, top_k and top_p change nothing:
    no code is likelier than another.
    """

    sizes: Tensor

    def __init__(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> None:
        super().__init__()
        self.code_spec = code_spec
        self.register_buffer("sizes", torch.tensor(code_spec.codebook_sizes), persistent=False)

    def log_prob(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        """Minus the rate, in nats: ``(batch,)`` for codes ``(batch, depth, *grid)``."""
        rate = self.code_spec.rate * log(2)
        return torch.full((len(codes),), -rate, device=codes.device)

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
        positions = prod(self.code_spec.grid)
        known = check_prefix(prefix, n, self.code_spec.codebook_sizes, positions).to(self.sizes.device)
        noise = uniforms(n, self.code_spec.codebook_sizes, positions, generator, self.sizes.device)
        codes = (noise * self.sizes[:, None]).long()
        codes[:, :, : known.shape[2]] = known
        if progress is not None:
            progress(positions)
        return codes.reshape(n, *self.code_spec.shape)
