"""A fixed lattice: every channel rounded to a few levels."""

from __future__ import annotations

from math import prod
from typing import final

import torch
from torch import Tensor

from toolkit.nn import codebook as table
from toolkit.nn import signs
from toolkit.nn.lattice import fixed
from toolkit.quantizer import Quantized, Quantizer
from toolkit.ranges import PositiveInt

MARGIN = 1e-3
"""How far bounded latents reach beyond the outermost levels, as a share, so that rounding can give those, too."""

EXACT = 2**24
"""Up to which all whole numbers are exact in float32."""

FARTHEST = 0.25
"""The most of it, in levels: from 1/2 on, rounding would give a level that does not exist."""


@final
class FSQQuantizer(Quantizer):
    """Each channel is bounded and rounded to one of its levels; nothing is learned (FSQ, Mentzer et al. 2023).

    A channel of L levels becomes ``round(tanh(z + shift) * reach - offset)``, where reach is a little above
    ``(L - 1) / 2``, offset is 0 for odd L and 1/2 for even L, and shift makes 0 stay 0. Divided by ``L // 2`` the
    values are in [-1, 1]. One code numbers all combinations; the first channel's level changes fastest. Computed in
    at least float32: in bfloat16 neighboring levels are confused.

    Ignores the dim of the configuration: its latents have one channel per entry of ``levels``, before and after.

    Args:
        levels: of each channel, at least 3; the paper advises 5 or more. The codebook's size is their product.
    """

    depth = 1

    def __init__(self, *, levels: tuple[PositiveInt, ...] = (8, 5, 5, 5)) -> None:
        super().__init__()
        if not levels or min(levels) < 3:
            raise ValueError(f"levels={list(levels)}: at least one channel, of at least 3 levels each (2: lfq or bsq)")
        if prod(levels) > 2**signs.LARGEST:
            raise ValueError(
                f"levels={list(levels)}: {prod(levels)} codes, at most {2**signs.LARGEST}; choose quantizer=product of"
                " several fsq"
            )
        self.channels = self.dim = len(levels)
        self.codebook_sizes = (prod(levels),)
        self.levels: Tensor
        self.strides: Tensor
        self.radius: Tensor
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self._strides = [prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("strides", torch.tensor(self._strides), persistent=False)
        self.register_buffer("radius", (self.levels // 2).to(torch.get_default_dtype()), persistent=False)

    def forward(self, z: Tensor) -> Quantized:
        bounded = self._bound(table.upcast(z))
        radius = _along(self.radius, z)
        steps = bounded.detach().round()
        return fixed(bounded / radius, steps / radius, self._codes(steps + radius), self.codebook_sizes[0])

    def embed(self, codes: Tensor) -> Tensor:
        radius, digits = _along(self.radius, codes), codes // _along(self.strides, codes) % _along(self.levels, codes)
        return (digits - radius) / radius

    def _codes(self, digits: Tensor) -> Tensor:
        """Digits ``(batch, channels, *grid)`` as codes: summed as floats where these are exact, which is faster."""
        exact = self.codebook_sizes[0] <= EXACT
        digits = digits if exact else digits.long()
        first, *others = digits.unbind(1)
        for stride, digit in zip(self._strides[1:], others, strict=True):
            first = first.add(digit, alpha=stride)
        return first.long().unsqueeze(1)

    def _bound(self, z: Tensor) -> Tensor:
        levels = _along(self.levels, z)
        outermost = (levels - 1).to(z) / 2
        reach = outermost + (outermost * MARGIN).clamp(max=FARTHEST)
        offset = (1 - levels % 2) / 2
        return (z + (offset / reach).atanh()).tanh() * reach - offset


def _along(numbers: Tensor, z: Tensor) -> Tensor:
    """One number per channel, broadcast against ``(batch, channel, *grid)``."""
    return numbers.view(-1, *[1] * (z.dim() - 2))
