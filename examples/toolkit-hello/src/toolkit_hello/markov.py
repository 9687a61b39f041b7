"""A Markov chain over codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit import CodeSpec, Condition, Prior, SamplingOptions
from toolkit.causal.sampling import check_prefix, guided, sample_logits, uniforms
from toolkit.nn.conditioning import ConditionEmbedding, over_grid
from toolkit.prior import PLAIN
from toolkit.priors.autoregressive import check_guidance
from toolkit.ranges import Fraction


@final
class MarkovPrior(Prior):
    """Every code depends only on the one before it, in raster order (a bigram model, Shannon 1948).

    Each depth is a chain of its own, with a table of the logits of the next code given the last; conditions add to
    the logits, whatever the last code was. Its probabilities are exact. It is a baseline for networks over the codes:
    the bits that it saves against ``categorical`` are what the previous code predicts.

    Args:
        condition_dropout: share of training examples without conditions, which guidance needs.
    """

    def __init__(
        self, code_spec: CodeSpec, conditions: tuple[Condition, ...], *, condition_dropout: Fraction = 0.1
    ) -> None:
        super().__init__()
        self.code_spec, self.condition_dropout = code_spec, condition_dropout
        sizes = code_spec.codebook_sizes
        self.tables = nn.ParameterList(torch.zeros(size + 1, size) for size in sizes)  # the last row is the start
        self.embedding = ConditionEmbedding(conditions, sum(sizes)) if conditions else None

    def log_prob(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        return self._log_prob(codes, conditions, None)

    def loss(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        keep = None if self.embedding is None else self.embedding.keep(len(codes), self.condition_dropout)
        return -self._log_prob(codes, conditions, keep)

    @torch.no_grad()
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
        check_guidance(sampling, self.embedding)
        sizes, positions, device = self.code_spec.codebook_sizes, prod(self.code_spec.grid), self.tables[0].device
        known = check_prefix(prefix, n, sizes, positions).to(device)
        noise = uniforms(n, sizes, positions, generator, device)
        branches = [conditions] if sampling.guidance == 1.0 else [conditions, {}]
        parts = zip(*(self._shifts(given, n, self.code_spec.grid) for given in branches), strict=True)
        shifts = [torch.cat(part) for part in parts]
        codes = torch.tensor(sizes, device=device).repeat(n, 1)  # the start, before the first position
        sampled = []
        for position in range(positions):
            if position < known.shape[2]:
                codes = known[:, :, position]
            else:
                before, codes = codes, torch.empty_like(codes)
                for depth, table in enumerate(self.tables):
                    logits = table[before[:, depth]].repeat(len(branches), 1) + shifts[depth][:, position]
                    logits = guided(logits, n, sampling.guidance)
                    codes[:, depth] = sample_logits(logits, noise[:, depth, position], sampling)
            sampled.append(codes)
            if progress is not None:
                progress(position + 1)
        return torch.stack(sampled, 2).reshape(n, *self.code_spec.shape)

    def _log_prob(self, codes: Tensor, conditions: Mapping[str, Tensor], keep: Tensor | None) -> Tensor:
        flat, nats = codes.flatten(2), []
        for depth, shift in enumerate(self._shifts(conditions, len(codes), codes.shape[2:], keep)):
            table, chain = self.tables[depth], flat[:, depth]
            before = F.pad(chain[:, :-1], (1, 0), value=table.shape[1])
            logits = (table[before] + shift).transpose(1, 2)
            nats.append(F.cross_entropy(logits, chain, reduction="none").sum(1))
        return -torch.stack(nats).sum(0)

    def _shifts(
        self, conditions: Mapping[str, Tensor], n: int, grid: Sequence[int], keep: Tensor | None = None
    ) -> Sequence[Tensor]:
        """The conditions' term in the logits of each depth, ``(n, positions, size)``."""
        sizes = list(self.code_spec.codebook_sizes)
        if self.embedding is None:
            return [self.tables[0].new_zeros(()).expand(n, prod(grid), size) for size in sizes]
        features = over_grid(self.embedding(conditions, n, keep), grid).expand(n, -1, *grid)
        parts: Sequence[Tensor] = features.flatten(2).transpose(1, 2).split(sizes, 2)
        return parts
