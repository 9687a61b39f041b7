"""The outcomes of a tiny distribution, and tests of samples against their probabilities."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from toolkit.spec import CodeSpec, DataSpec


def every(spec: CodeSpec | DataSpec) -> Tensor:
    """All code maps, or all x of data with levels: ``(number, depth or channels, *axes)``."""
    if isinstance(spec, CodeSpec):
        sizes, axes = spec.codebook_sizes, spec.grid
    else:
        assert spec.levels is not None
        sizes, axes = (spec.levels,) * spec.channels, spec.axes
    choices = [torch.arange(size) for size in sizes for _ in range(prod(axes))]
    return torch.cartesian_prod(*choices).reshape(-1, len(sizes), *axes)


def histogram(samples: Tensor, outcomes: Tensor) -> Tensor:
    """How often each of the outcomes of ``every`` was sampled."""
    flat, sizes = outcomes.flatten(1), outcomes.flatten(1).amax(0) + 1
    index = torch.zeros(len(samples), dtype=torch.int64)
    for value, size in zip(samples.flatten(1).unbind(1), sizes, strict=True):
        index = index * size + value
    return torch.bincount(index, minlength=len(flat))


def goodness_of_fit(counts: Tensor, expected: Tensor) -> float:
    """The p-value of Pearson's chi-squared test; cells with an expected count below 5 are pooled."""
    assert counts[expected == 0].sum() == 0
    rare = expected < 5
    counts = torch.cat((counts[~rare], counts[rare].sum()[None])).double()
    expected = torch.cat((expected[~rare], expected[rare].sum()[None]))
    counts, expected = counts[expected > 0], expected[expected > 0]
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = torch.tensor((len(expected) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, statistic / 2))
