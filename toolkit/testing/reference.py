"""Slow, obvious versions of what the toolkit does fast; tests hold the two against each other."""

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
    """What ``toolkit.causal.sampling.sample`` gives, by one whole forward for every code."""
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
                shares = _shares(logits[i], sampling)
                codes[i, d, position] = _invert(shares, float(noise[i, d, position]))
    return codes.reshape(n, depth, *grid)


def _shares(logits: Tensor, sampling: SamplingOptions) -> list[float]:
    """Probabilities of one code after the filters, which set those of other codes to 0."""
    shares: list[float] = torch.softmax(logits.double() / sampling.temperature, 0).tolist()
    if sampling.top_k is not None:
        least = sorted(shares, reverse=True)[: sampling.top_k][-1]
        shares = [share if share >= least else 0.0 for share in shares]
    if sampling.top_p is not None:
        needed, held, least = sampling.top_p * sum(shares), 0.0, 0.0
        for share in sorted(shares, reverse=True):
            if held >= needed:
                break
            held, least = held + share, share
        shares = [share if share >= least else 0.0 for share in shares]
    return shares


def _invert(shares: list[float], uniform: float) -> int:
    """The first code at which the running sum passes the given share of the total."""
    target, passed = uniform * sum(shares), 0.0
    for code, share in enumerate(shares):
        passed += share
        if passed > target:
            return code
    return max(code for code, share in enumerate(shares) if share > 0)
