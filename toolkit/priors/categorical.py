"""Independent codes: the baseline for a network to beat."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.causal.sampling import check_prefix, guided, sample_logits, uniforms
from toolkit.entropy import EntropyCoder
from toolkit.nn.conditioning import ConditionEmbedding, over_grid
from toolkit.nn.portable import integer_weights
from toolkit.prior import PLAIN, Prior, SamplingOptions
from toolkit.priors.autoregressive import check_guidance
from toolkit.ranges import Fraction
from toolkit.spec import CodeSpec, Condition

SPEED = 16.0
"""Logits are this many times the parameters: they range over several nats, and Adam moves a parameter by at most its
learning rate, so that unscaled they would learn more slowly than a network's."""


@final
class CategoricalPrior(Prior):
    """Every position and depth has a distribution over its codebook, independent of all other codes.

    Conditions shift the logits of all positions alike; those per step, along the grid's first axis.

    Args:
        condition_dropout: share of the training examples that have no conditions.
    """

    def __init__(
        self, code_spec: CodeSpec, conditions: tuple[Condition, ...], *, condition_dropout: Fraction = 0.1
    ) -> None:
        super().__init__()
        self.code_spec, self.condition_dropout = code_spec, condition_dropout
        self.table = nn.Parameter(torch.zeros(sum(code_spec.codebook_sizes), *code_spec.grid))
        self.embedding = ConditionEmbedding(conditions, sum(code_spec.codebook_sizes)) if conditions else None
        # A linear map of real values is rounded differently elsewhere; sums of rows are not.
        self.portable = not any(condition.real for condition in conditions)
        if self.embedding is not None:
            for parameter in self.embedding.parameters():
                nn.init.zeros_(parameter)

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
        sizes, positions, device = self.code_spec.codebook_sizes, prod(self.code_spec.grid), self.table.device
        known = check_prefix(prefix, n, sizes, positions).to(device)
        noise = uniforms(n, sizes, positions, generator, device)
        branches = [conditions]
        if self.embedding is not None and sampling.guidance != 1.0:
            branches.append(self.embedding.always(conditions))
        by_depth = zip(*(self._logits(branch, n, self.code_spec.grid) for branch in branches), strict=True)
        sampled = []
        for depth, parts in enumerate(by_depth):
            logits = torch.cat([part.flatten(2).transpose(1, 2).expand(n, -1, -1) for part in parts])
            sampled.append(sample_logits(guided(logits, n, sampling.guidance), noise[:, depth], sampling))
        codes = torch.stack(sampled, 1)
        codes[:, :, : known.shape[2]] = known
        if progress is not None:
            progress(positions)
        return codes.reshape(n, *self.code_spec.shape)

    @torch.no_grad()
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
        """As ``Prior.entropy_code``; the probabilities are whole numbers over their sum, the same on every machine."""
        device, grid = self.table.device, self.code_spec.grid
        positions = prod(grid) if positions is None else positions
        known = check_prefix(prefix, n, self.code_spec.codebook_sizes[:depth], prod(grid)).to(device)
        logits = self._logits(conditions, n, grid)[:depth]
        by_depth = [integer_weights(part.flatten(2).transpose(1, 2)) for part in logits]
        coded = [known]
        for position in range(known.shape[2], positions):
            probs = [weights[:, position : position + 1].expand(n, -1, -1) for weights in by_depth]
            values = [None] * len(probs) if codes is None else list(codes[:, :, position : position + 1].unbind(1))
            coded.append(torch.stack([coder.code(p, v) for p, v in zip(probs, values, strict=True)], 1).to(device))
        return torch.cat(coded, 2)

    def _log_prob(self, codes: Tensor, conditions: Mapping[str, Tensor], keep: Tensor | None) -> Tensor:
        nats = []
        for depth, logits in enumerate(self._logits(conditions, len(codes), codes.shape[2:], keep)):
            logits = logits.expand(len(codes), -1, *codes.shape[2:])
            nats.append(F.cross_entropy(logits, codes[:, depth], reduction="none").flatten(1).sum(1))
        return -torch.stack(nats).sum(0)

    def _logits(
        self, conditions: Mapping[str, Tensor], n: int, grid: Sequence[int], keep: Tensor | None = None
    ) -> Sequence[Tensor]:
        """For each depth ``(n or 1, size, *grid)``."""
        logits = self.table[(slice(None), *map(slice, grid))].unsqueeze(0)
        if self.embedding is not None:
            logits = logits + over_grid(self.embedding(conditions, n, keep), grid)
        parts: Sequence[Tensor] = (SPEED * logits).split(list(self.code_spec.codebook_sizes), 1)
        return parts
