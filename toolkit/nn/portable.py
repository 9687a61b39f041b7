"""Arithmetic that gives the same numbers on every machine, as files written on one are read on another."""

from __future__ import annotations

from math import log

import numpy as np
import torch
from torch import Tensor

WHOLE = 1 << 36
"""The weight of the likeliest; others are rounded to this fraction of it, but to no less than 1."""

LEAST = -40.0
"""Below this, e^x of WHOLE is nothing."""


def integer_weights(logits: Tensor) -> Tensor:
    """Whole numbers in proportion to ``e^logits`` along the last axis, float64 on the CPU.

    Only sums, products and comparisons of double precision, one at a time, which IEEE 754 defines to the last bit:
    an exponential of a library, or sums that a processor orders as it likes, would differ in that bit.
    """
    x = logits.detach().cpu().double().numpy()
    x = np.maximum(x - x.max(-1, keepdims=True), LEAST)
    # e^x = 2^k e^r with |r| <= log(2) / 2
    k = np.rint(x * (1 / log(2)))
    r = x - k * log(2)
    power, term = np.ones_like(r), np.ones_like(r)
    for i in range(1, 14):
        term = term * r * (1 / i)
        power = power + term
    return torch.from_numpy(np.maximum(np.rint(np.ldexp(power * WHOLE, k.astype(np.int64))), 1.0))
