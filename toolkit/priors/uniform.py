"""The uniform prior."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log, prod
from typing import final

import torch
from torch import Tensor

from toolkit.causal.sampling import check_prefix, uniforms
from toolkit.entropy import EntropyCoder
from toolkit.prior import PLAIN, Prior, SamplingOptions
from toolkit.spec import CodeSpec, Condition


@final
class UniformPrior(Prior):
    """All code maps are equally likely, under any conditions; there is nothing to train.

    Its nats are the rate, the cost of codes before a prior is learned. Temperature, top_k and top_p change nothing:
    no code is likelier than another.
    """

    sizes: Tensor
    portable = True
    takes_padding = True

    def __init__(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> None:
        super().__init__()
        self.code_spec = code_spec
        self.register_buffer("sizes", torch.tensor(code_spec.codebook_sizes), persistent=False)

    def log_prob(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        """Minus the rate, in nats: ``(batch,)`` for codes ``(batch, depth, *grid)``."""
        rate = self.code_spec.rate * (prod(codes.shape[2:]) / prod(self.code_spec.grid)) * log(2)
        return torch.full((len(codes),), -rate, device=codes.device)

    def nats_by_position(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        of_depth = self.sizes.to(torch.get_default_dtype()).log().view(-1, *[1] * (codes.dim() - 2))
        return of_depth.expand(codes.shape)

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
        """As ``Prior.entropy_code``; ``positions`` may be more than the grid has."""
        positions = prod(self.code_spec.grid) if positions is None else positions
        sizes = self.code_spec.codebook_sizes[:depth]
        known = self.sizes.new_zeros(n, len(sizes), 0) if prefix is None else prefix.to(self.sizes.device)
        rows = self.sizes.new_zeros(n, positions - known.shape[2], len(sizes))
        values = None if codes is None else codes[:, :, known.shape[2] :].transpose(1, 2).reshape(rows.shape)
        read = [
            coder.code_uniform(size, rows[:, p, d].flatten(1), None if values is None else values[:, p, d].flatten(1))
            for p, d, size in _stretches(sizes, rows.shape[1])
        ]
        coded = torch.cat(read, 1) if read else rows
        return torch.cat([known, coded.reshape(rows.shape).transpose(1, 2)], 2)


def _stretches(sizes: tuple[int, ...], positions: int) -> list[tuple[slice, slice | int, int]]:
    """Which positions and depths are coded together, and from how many entries: all, where the sizes are alike."""
    if len(set(sizes)) == 1:
        return [(slice(None), slice(None), sizes[0])] if positions else []
    return [(slice(p, p + 1), d, size) for p in range(positions) for d, size in enumerate(sizes)]
