"""A discriminator that hears each period of a sound beside the next."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import final

from torch import Tensor, nn

from toolkit import DataSpec, Discriminator
from toolkit.discriminator import Judgement
from toolkit.ranges import PositiveInt
from toolkit_audio.judging import Judge, Leveled, check_sound, heard, normed
from toolkit_audio.seanet import reflected

WIDTHS = (1, 4, 16, 32, 32)
"""Channels of the layers, in multiples of ``hidden``."""
SLOPE = 0.1


@final
class PeriodsDiscriminator(Discriminator):
    """HiFi-GAN's multi-period discriminator (Kong et al. 2020, arXiv:2010.05646, section 2.3), as in DAC.

    For each period p a network hears the waveform as a picture of ``(samples / p, p)``, whose columns are every p-th
    sample, through four convolutions 5 samples of a column high, of stride 3, and one without a stride, with weight
    norm: what is wrong with a pitch is seen in one column or beside it. A sound that is no whole number of periods goes
    on backwards. At its defaults 41.1 million parameters, a fifth of them for each period.

    Args:
        periods: in samples; primes, so that they have little in common.
        hidden: channels of the first layer; the next have 4, 16, 32 and 32 times as many.
    """

    def __init__(
        self,
        data: DataSpec,
        *,
        periods: tuple[PositiveInt, ...] = (2, 3, 5, 7, 11),
        hidden: PositiveInt = 32,
        leveled: Leveled = False,
    ) -> None:
        super().__init__()
        check_sound(data)
        if not periods:
            raise ValueError("periods=[]: at least one")
        self.data, self.periods, self.leveled = data, periods, leveled
        self.judges = nn.ModuleList(_judge(data.channels, hidden) for _ in periods)

    def forward(self, x: Tensor, conditions: Mapping[str, Tensor]) -> list[Judgement]:
        """x ``(batch, channels, samples)``, of any number; logits ``(batch, 1, samples / (81 period), period)``."""
        waveform = heard(x, self.data, self.leveled)
        return [judge(_folded(waveform, period)) for judge, period in zip(self.judges, self.periods, strict=True)]


def _judge(channels: int, hidden: int) -> Judge:
    widths = [channels, *(hidden * times for times in WIDTHS)]
    strides = [3] * (len(WIDTHS) - 1) + [1]
    layers = [
        normed(nn.Conv2d(inputs, outputs, (5, 1), (stride, 1), (2, 0)))
        for (inputs, outputs), stride in zip(pairwise(widths), strides, strict=True)
    ]
    return Judge(layers, normed(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0))), SLOPE)


def _folded(waveform: Tensor, period: int) -> Tensor:
    """``(batch, channels, samples)`` to ``(batch, channels, periods, period)``."""
    missing = -waveform.shape[-1] % period
    whole = reflected(waveform, 0, missing) if missing else waveform
    folded: Tensor = whole.unflatten(-1, (-1, period))
    return folded
