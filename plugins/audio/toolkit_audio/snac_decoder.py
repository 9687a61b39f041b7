"""The decoder of SNAC."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from toolkit import Condition, Decoder, Distribution, Likelihood
from toolkit.nn.conditioning import ConditionEmbedding, add_conditions
from toolkit.nn.context import decoder_context
from toolkit.ranges import PositiveInt
from toolkit_audio.snake import KERNEL, Snake, convolution, units, up
from toolkit_audio.starts import SPEECH, started
from toolkit_audio.window_attention import AttentionWindow, WindowAttention


@final
class SNACDecoder(Decoder):
    """SNAC's decoder: DAC's, with depth-wise convolutions, attention inside windows, and noise after each stride.

    The multi-scale neural audio codec (Siuzdak et al. 2024, arXiv:2410.14411): ``hidden=1024`` and no window at 24 kHz,
    ``hidden=1536`` and windows of 32 with strides 8, 8, 3, 2 at 32 kHz, and 7, 7, 3, 3 at 44.1 kHz. Conditions are
    embedded and added to what the first two layers give.

    Args:
        hidden: channels before the first stride.
        strides: of the transposed convolutions, of window 2 * stride, from the latents up.
        noise: whether each stride is followed by noise, one number for each position, times a linear map of what is
            there. In training only: out of it the noise is at its mean, 0, so that codes have one sound. The published
            model draws it there, too.
        tanh: whether a tanh keeps what it gives in [-1, 1], as a likelihood's mean is; not for logits.
    """

    rank = 1

    def __init__(
        self,
        dim: int,
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
        *,
        hidden: PositiveInt = 1024,
        strides: tuple[PositiveInt, ...] = (8, 8, 4, 2),
        window: AttentionWindow = None,
        noise: bool = True,
        tanh: bool = True,
    ) -> None:
        super().__init__()
        if hidden % 2 ** len(strides):
            raise ValueError(f"hidden={hidden}: a multiple of {2 ** len(strides)}, as it is halved at each stride")
        self.likelihood = likelihood
        widths = [hidden // 2**k for k in range(len(strides) + 1)]
        self.proj_in = nn.Sequential(convolution(dim, dim, KERNEL, groups=dim), convolution(dim, hidden, 1))
        self.conditions = ConditionEmbedding(conditions, hidden) if conditions else None
        layers: list[nn.Module] = [] if window is None else [WindowAttention(hidden, window)]
        for (channels, narrower), stride in zip(pairwise(widths), strides, strict=True):
            beside = [Noise(narrower)] if noise else []
            layers.append(
                nn.Sequential(Snake(channels), up(channels, narrower, stride), *beside, *units(narrower, narrower))
            )
        layers += [Snake(widths[-1]), convolution(widths[-1], likelihood.channels, KERNEL, gain=SPEECH)]
        self.network = nn.Sequential(*layers, *([nn.Tanh()] if tanh else []))
        if window is None:  # else what a position depends on is that of its place in a window
            self.context = decoder_context(prod(strides), [self.proj_in, self.network])

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        """z ``(batch, dim, positions)``."""
        h = add_conditions(self.proj_in(z), self.conditions, conditions)
        return self.likelihood(self.network(h))


NOISE = 0.1
"""Of noise beside what is there, in the beginning."""


class Noise(nn.Module):
    """Noise of the unit normal, the same for all channels, times a linear map of the input; added to it in training."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = weight_norm(started(nn.Conv1d(channels, channels, 1, bias=False), NOISE))

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, channels, positions)``."""
        if not self.training:
            return h
        change: Tensor = torch.randn_like(h[:, :1]) * self.linear(h)
        return h + change
