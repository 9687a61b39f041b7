"""Slow, obvious versions of fast code, for tests to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from toolkit.causal.network import CausalNetwork
from toolkit.causal.sampling import uniforms
from toolkit.prior import PLAIN, SamplingOptions


@torch.no_grad()
def sample_slowly(
    network: CausalNetwork,
    n: int,
    grid: Sequence[int],
    sampling: SamplingOptions = PLAIN,
    *,
    context: Tensor | None = None,
    unconditional: Tensor | None = None,
    prefix: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The codes of ``toolkit.causal.sampling.sample``, by a full forward pass per code."""
    depth, positions = len(network.codebook_sizes), prod(grid)
    noise = uniforms(n, network.codebook_sizes, positions, generator)
    codes = torch.zeros(n, depth, positions, dtype=torch.int64)
    fixed = 0 if prefix is None else prefix.shape[2]
    if prefix is not None:
        codes[:, :, :fixed] = prefix
    for position in range(fixed, positions):
        for d in range(depth):
            whole = codes.reshape(n, depth, *grid)
            logits = network(whole, context)[d].flatten(1, -2)[:, position]
            if sampling.guidance != 1.0:
                free = network(whole, unconditional)[d].flatten(1, -2)[:, position]
                logits = free + sampling.guidance * (logits - free)
            for i in range(n):
                probs = _filtered_probs(logits[i], sampling)
                codes[i, d, position] = _inverse_cdf(probs, float(noise[i, d, position]))
    return codes.reshape(n, depth, *grid)


def _filtered_probs(logits: Tensor, sampling: SamplingOptions) -> list[float]:
    """Probabilities of one code after the filters, which set some to 0."""
    probs: list[float] = torch.softmax(logits.double() / sampling.temperature, 0).tolist()
    if sampling.top_k is not None:
        least = sorted(probs, reverse=True)[: sampling.top_k][-1]
        probs = [prob if prob >= least else 0.0 for prob in probs]
    if sampling.top_p is not None:
        needed, total, least = sampling.top_p * sum(probs), 0.0, 0.0
        for prob in sorted(probs, reverse=True):
            if total >= needed:
                break
            total, least = total + prob, prob
        probs = [prob if prob >= least else 0.0 for prob in probs]
    return probs


def _inverse_cdf(probs: list[float], uniform: float) -> int:
    """The first code at which the cumulative sum exceeds ``uniform`` of the total."""
    target, cumulative = uniform * sum(probs), 0.0
    for code, prob in enumerate(probs):
        cumulative += prob
        if cumulative > target:
            return code
    return max(code for code, prob in enumerate(probs) if prob > 0)
