"""The extended binary Golay code: 4096 words of 24 bits, any two of which differ in at least 8."""

from __future__ import annotations

import torch
from torch import Tensor

TAPS = (0, 1, 3)
MIRRORED = (0, 2, 3)
"""Of the generators 1 + x + x^3 and 1 + x^2 + x^3 of the two cyclic Hamming codes of length 7."""


def hamming(taps: tuple[int, ...]) -> Tensor:
    """The extended Hamming code ``(16, 8)``, int64 zeros and ones; the sum of words i and j is word i XOR j."""
    basis = torch.zeros(4, 8, dtype=torch.int64)
    for row in range(4):
        basis[row, [row + tap for tap in taps]] = 1
    basis[:, 7] = basis.sum(1) % 2
    bits = torch.arange(16).unsqueeze(1) >> torch.arange(4) & 1
    return bits @ basis % 2


def thirds() -> Tensor:
    """What a third of a codeword may be, ``(16, 16, 8)``: word a of the one Hamming code plus word x of the other, at
    ``[x, a]``.
    """
    return (hamming(MIRRORED).unsqueeze(1) + hamming(TAPS)) % 2


def codewords() -> Tensor:
    """All words ``(4096, 24)``, by Turyn's construction: ``(a + x, b + x, a + b + x)`` is word ``256 x + 16 a + b``."""
    x, a, b = torch.cartesian_prod(*[torch.arange(16)] * 3).unbind(1)
    third = thirds()
    return torch.cat([third[x, a], third[x, b], third[x, a ^ b]], 1)


def octads() -> Tensor:
    """The places of the ones of the words with eight, ``(759, 8)``, in the words' order."""
    words = codewords()
    return words[words.sum(1) == 8].nonzero()[:, 1].view(-1, 8)
