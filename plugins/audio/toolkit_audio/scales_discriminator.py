"""A discriminator that hears a sound at several sample rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import final

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from toolkit import DataSpec, Discriminator
from toolkit.discriminator import Judgement
from toolkit.ranges import PositiveInt
from toolkit_audio.judging import Judge, Leveled, check_sound, heard, normed

WIDTHS = (1, 1, 2, 4, 8, 8, 8)
"""Channels of the layers, in multiples of ``hidden``."""
KERNELS = (15, 41, 41, 41, 41, 41, 5)
STRIDES = (1, 2, 2, 4, 4, 1, 1)
GROUPS = (1, 4, 16, 16, 16, 16, 1)
SLOPE = 0.1


@final
class ScalesDiscriminator(Discriminator):
    """The multi-scale discriminator of MelGAN (Kumar et al. 2019, arXiv:1910.06711) at HiFi-GAN's sizes (Kong et al.
    2020, arXiv:2010.05646, section 2.3).

    The same network, with weights of its own, hears the waveform and its means over 4 samples at half, a quarter, … of
    the rate, through long grouped convolutions. As published the first has spectral norm, and the others have weight
    norm. At its defaults 29.6 million parameters.

    Args:
        scales: how many networks there are.
        hidden: channels of the first layer, a multiple of 16; the last have eight times as many.
    """

    def __init__(
        self,
        data: DataSpec,
        *,
        scales: PositiveInt = 3,
        hidden: PositiveInt = 128,
        leveled: Leveled = False,
    ) -> None:
        super().__init__()
        check_sound(data)
        if hidden % max(GROUPS):
            raise ValueError(f"hidden={hidden}: a multiple of {max(GROUPS)}, the groups of its convolutions")
        self.data, self.leveled = data, leveled
        norms: list[Callable[[nn.Module], nn.Module]] = [spectral_norm, *[normed] * (scales - 1)]
        self.judges = nn.ModuleList(_judge(data.channels, hidden, norm) for norm in norms)

    def forward(self, x: Tensor, conditions: Mapping[str, Tensor]) -> list[Judgement]:
        """x ``(batch, channels, samples)``, of any number; logits ``(batch, 1, samples / (64 * 2 ** scale))``."""
        waveform = heard(x, self.data, self.leveled)
        judgements = []
        for scale, judge in enumerate(self.judges):
            waveform = F.avg_pool1d(waveform, 4, 2, padding=2) if scale else waveform
            judgements.append(judge(waveform))
        return judgements


def _judge(channels: int, hidden: int, norm: Callable[[nn.Module], nn.Module]) -> Judge:
    widths = [channels, *(hidden * times for times in WIDTHS)]
    sizes = zip(pairwise(widths), KERNELS, STRIDES, GROUPS, strict=True)
    layers = [
        norm(nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2, groups=groups))
        for (inputs, outputs), kernel, stride, groups in sizes
    ]
    return Judge(layers, norm(nn.Conv1d(widths[-1], 1, 3, padding=1)), SLOPE)
