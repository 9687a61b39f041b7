"""A penalty on a critic that knows its data by heart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from toolkit.discriminator import Judgement
from toolkit.distributed import all_reduce_mean
from toolkit.objectives.games import mean

DECAY = 0.99
"""Of the moving means, as in the paper's code."""


@final
class LeCAM(nn.Module):
    """How far the logits of data lie above the moving mean of those of reconstructions, and these below the moving mean
    of those, squared (Tseng et al. 2021, arXiv:2104.03310, eq. 6, one-sided as in its code). The means are over batches
    and ranks."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.means: Tensor
        self.initialized: Tensor
        self.register_buffer("means", torch.zeros(2))
        self.register_buffer("initialized", torch.zeros(()))

    def forward(self, of_real: Sequence[Judgement], of_fake: Sequence[Judgement]) -> Tensor:
        """0-d."""
        real, fake = self._moved(torch.stack([mean(of_real, _same), mean(of_fake, _same)]).detach()).unbind()
        above = mean(of_real, lambda t: (t - fake).relu().square())
        return above + mean(of_fake, lambda t: (real - t).relu().square())

    @torch.no_grad()
    def _moved(self, now: Tensor) -> Tensor:
        """The means of data and of reconstructions before this batch, or its own, if it is the first."""
        now = now.to(self.means)
        if self.training:
            all_reduce_mean(now)
        old = torch.where(self.initialized > 0, self.means, now)
        if self.training:
            self.means.copy_(torch.where(now.isfinite(), old.lerp(now, 1 - DECAY), old))
            self.initialized.fill_(1)
        return old


def _same(logits: Tensor) -> Tensor:
    return logits
