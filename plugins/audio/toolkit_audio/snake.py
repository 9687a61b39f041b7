"""The blocks of DAC, the Descript audio codec (Kumar et al. 2023, arXiv:2306.06546), which SNAC has, too."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from toolkit.nn.context import reads
from toolkit_audio.starts import of_units, started

KERNEL = 7
"""Of the first and the last convolution, and of a residual unit's first one."""
DILATIONS = (1, 3, 9)
"""Of the residual units beside each stride."""
TINY = 1e-9
"""Added to a frequency before it divides."""
GAIN = 0.8
"""Of convolutions, as a snake raises the power of what it is given by half."""


class Snake(nn.Module):
    """``h + sin(a h)^2 / a`` with a learned frequency a per channel (Ziyin et al. 2020, arXiv:2006.08195).

    Periodic, so that a network with it goes on with a pitch where one of ReLUs would go straight on.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.ones(channels))

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, channels, positions)``."""
        frequency = self.frequency.unsqueeze(1)
        scale = (frequency + TINY).reciprocal()
        if torch.is_grad_enabled():
            return (torch.sin(frequency * h).square() * scale).add_(h)
        # Nothing is kept for a gradient, and at the samples' rate new memory costs more than the arithmetic.
        return (frequency * h).sin_().square_().mul_(scale).add_(h)


def convolution(
    inputs: int, outputs: int, kernel: int, *, dilation: int = 1, groups: int = 1, gain: float = 1.0
) -> nn.Module:
    """As many positions out as in, with zeros beyond the ends. ``gain``: of its first weights."""
    padding = dilation * (kernel - 1) // 2
    conv = nn.Conv1d(inputs, outputs, kernel, dilation=dilation, padding=padding, groups=groups)
    normalized: nn.Module = weight_norm(started(conv, GAIN * gain))
    return normalized


def down(inputs: int, outputs: int, stride: int) -> nn.Module:
    """A convolution of window ``2 * stride`` from ``n`` positions to ``n / stride``."""
    padding = (stride + 1) // 2
    conv = nn.Conv1d(inputs, outputs, 2 * stride, stride=stride, padding=padding)
    normalized: nn.Module = weight_norm(started(conv, GAIN))
    return normalized


def up(inputs: int, outputs: int, stride: int) -> nn.Module:
    """A transposed convolution of window ``2 * stride`` from ``n`` positions to ``n * stride``.

    Where a stride is odd, the published networks make a position less, and so end early.
    """
    padding, more = (stride + 1) // 2, stride % 2
    conv = nn.ConvTranspose1d(inputs, outputs, 2 * stride, stride=stride, padding=padding, output_padding=more)
    normalized: nn.Module = weight_norm(started(conv, GAIN, stride))
    return normalized


class SnakeUnit(nn.Module):
    """Snake, dilated 7-wide convolution, snake, 1-wide one, added to the input.

    ``groups``: of the wide convolution; as many as channels, and it is of each channel by itself.
    """

    def __init__(self, channels: int, dilation: int, groups: int = 1) -> None:
        super().__init__()
        self.before_wide, self.before_narrow = Snake(channels), Snake(channels)
        self.wide = convolution(channels, channels, KERNEL, dilation=dilation, groups=groups)
        self.narrow = convolution(channels, channels, 1, gain=of_units(len(DILATIONS)))

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it; the input itself is among what ``wide`` reads."""
        return reads([self.wide, self.narrow], first, last)

    def forward(self, h: Tensor) -> Tensor:
        change: Tensor = self.narrow(self.before_narrow(self.wide(self.before_wide(h))))
        return h + change


def units(channels: int, groups: int = 1) -> list[nn.Module]:
    return [SnakeUnit(channels, dilation, groups) for dilation in DILATIONS]
