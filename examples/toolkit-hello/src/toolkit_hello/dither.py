"""Stochastic rounding, which is unbiased."""

from __future__ import annotations

from math import prod
from typing import final

import torch
from torch import Tensor

from toolkit import Quantized, Quantizer
from toolkit.nn.codebook import upcast
from toolkit.nn.lattice import fixed
from toolkit.ranges import PositiveInt

LARGEST = 1 << 24
"""Codes, at most: larger tables over them do not fit into memory."""


@final
class DitherQuantizer(Quantizer):
    """Stochastic rounding (Gupta et al. 2015, arXiv:1502.02551, section 3) of every channel to a few levels.

    A channel of L levels is bounded to ``y = (L - 1) * sigmoid(z)`` and in training becomes ``floor(y + u)`` with u
    uniform in [0, 1): its mean is y, whereas rounding to the nearest level leaves an error that depends on y. In eval
    mode it is the nearest level, and nothing is random. Levels are scaled to [-1, 1], with a straight-through gradient.
    One code numbers all combinations, the first channel's level running fastest.

    It does not use the configuration's dim: the latents have one channel per entry of ``levels``, before and after.
    Wrap it in ``projected`` for latents of any dim.

    Args:
        levels: of each channel, at least 2. The codebook's size is their product.
    """

    depth = 1

    def __init__(self, *, levels: tuple[PositiveInt, ...] = (6, 6, 6)) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise ValueError(f"levels={list(levels)}: at least one channel, of at least 2 levels each, is needed")
        if prod(levels) > LARGEST:
            raise ValueError(f"levels={list(levels)}: {prod(levels)} codes, at most {LARGEST}; take fewer levels")
        self.channels = self.dim = len(levels)
        self.codebook_sizes = (prod(levels),)
        self.levels: Tensor
        self.strides: Tensor
        self.tops: Tensor
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        strides = torch.tensor([prod(levels[:i]) for i in range(len(levels))])
        self.register_buffer("strides", strides, persistent=False)
        self.register_buffer("tops", torch.tensor(levels).to(torch.get_default_dtype()) - 1, persistent=False)

    def forward(self, z: Tensor) -> Quantized:
        """z ``(batch, channels, *grid)``; ``loss`` is 0, since there is nothing to learn."""
        z = upcast(z)
        tops = _along(self.tops, z)
        y = z.sigmoid() * tops
        steps = (y + torch.rand_like(y)).floor().minimum(tops) if self.training else y.round()
        codes = (steps.long() * _along(self.strides, z)).sum(1, keepdim=True)
        return fixed(2 * y / tops - 1, 2 * steps / tops - 1, codes, self.codebook_sizes[0])

    def embed(self, codes: Tensor) -> Tensor:
        """codes ``(batch, 1, *grid)`` to ``(batch, channels, *grid)`` in [-1, 1]."""
        steps = codes // _along(self.strides, codes) % _along(self.levels, codes)
        return 2 * steps / _along(self.tops, codes) - 1


def _along(numbers: Tensor, z: Tensor) -> Tensor:
    """One number per channel, shaped to broadcast over ``(batch, channel, *grid)``."""
    return numbers.view(-1, *[1] * (z.dim() - 2))
