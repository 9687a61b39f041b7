"""Codes of a large codebook as several numbers of few values each."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor


def factors_of(size: int, largest: int) -> tuple[int, ...]:
    """Numbers above 1 whose product is ``size``: its prime factors, neighbors multiplied as far as ``largest`` allows.

    A prime factor above ``largest`` stands alone; a size of 1 is one factor of 1.
    """
    grouped = [1]
    for prime in _primes(size):
        if grouped[-1] * prime <= max(largest, 2) or grouped[-1] == 1:
            grouped[-1] *= prime
        else:
            grouped.append(prime)
    return tuple(grouped)


def split(codes: Tensor, factors: Sequence[int]) -> Tensor:
    """Codes ``(…)`` below the product of factors to ``(factors, …)``, the first of which changes fastest.

    Negative codes, which stand for unknown ones, are -1 in all.
    """
    parts, rest = [], codes.clamp(min=0)
    for factor in factors:
        parts.append(rest % factor)
        rest = rest // factor
    return torch.stack(parts).masked_fill(codes < 0, -1)


def join(parts: Sequence[Tensor], factors: Sequence[int]) -> Tensor:
    """What ``split`` has split, of codes that are all known."""
    codes = torch.zeros_like(parts[0])
    for part, stride in zip(parts, _strides(factors), strict=True):
        codes = codes + stride * part
    return codes


def _strides(factors: Sequence[int]) -> list[int]:
    return [prod(factors[:number]) for number in range(len(factors))]


def _primes(size: int) -> list[int]:
    """Prime factors, from the smallest."""
    primes, divisor = [], 2
    while divisor * divisor <= size:
        while size % divisor == 0:
            primes.append(divisor)
            size //= divisor
        divisor += 1
    return [*primes, size] if size > 1 else primes
