"""A network that judges the whole and every position."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.discriminator import Discriminator, Judgement
from toolkit.nn.critic_conv import Norm, check_data, halved, halving, layer, plain
from toolkit.ranges import PositiveInt
from toolkit.spec import DataSpec

MOST = 8
"""The widest layer, in widths of the first."""


@final
class UNetDiscriminator(Discriminator):
    """A U-Net (Schönfeld et al. 2020, arXiv:2002.12655, section 3.1): its encoder judges the whole, and its decoder,
    which sees the encoder's layers beside its own, each position of x, on data of one to three axes.

    The paper's cutmix of data and reconstructions is not part of it. An axis of fewer than four positions is not halved
    further.

    Args:
        width: channels of the first layer; each further one has twice as many, up to eight times.
        layers: times that the axes are halved, and doubled again.
    """

    def __init__(
        self, data: DataSpec, *, width: PositiveInt = 32, layers: PositiveInt = 4, norm: Norm = "spectral"
    ) -> None:
        super().__init__()
        check_data(data)
        if width < 1:
            raise ValueError(f"width={width}: at least 1")
        if layers < 1:
            raise ValueError(f"layers={layers}: at least 1")
        ones, threes = (1,) * data.rank, (3,) * data.rank
        widths = [width * min(2**number, MOST) for number in range(layers + 1)]
        axes, self.down = data.axes, nn.ModuleList()
        for inputs, outputs in pairwise(widths):
            self.down.append(halving(inputs, outputs, axes, norm))
            axes = halved(axes)
        self.proj_in = layer(data.channels, width, threes, ones, norm if norm == "spectral" else "none")
        self.up = nn.ModuleList(
            layer(deep + skipped, skipped, threes, ones, norm) for skipped, deep in reversed(list(pairwise(widths)))
        )
        self.whole = plain(widths[-1], 1, ones, ones, norm)
        self.proj_out = plain(width, 1, ones, ones, norm)

    def forward(self, x: Tensor, conditions: Mapping[str, Tensor]) -> list[Judgement]:
        """The judgement of the whole, logits ``(batch, 1)``, and that of each position, ``(batch, 1, *axes)``."""
        down = [self.proj_in(x)]
        for block in self.down:
            down.append(block(down[-1]))
        pooled = down[-1].flatten(2).mean(2).view(*down[-1].shape[:2], *[1] * (x.dim() - 2))
        h, up = down[-1], []
        for block, skipped in zip(self.up, reversed(down[:-1]), strict=True):
            h = block(torch.cat([F.interpolate(h, size=skipped.shape[2:]), skipped], 1))
            up.append(h)
        return [
            Judgement(self.whole(pooled).flatten(1), tuple(down)),
            Judgement(self.proj_out(h), tuple(up)),
        ]
