"""Blocks of SEANet, the network of the neural codecs (Tagliasacchi et al. 2020; Zeghidour et al. 2021; Défossez et al.
2022), causal or not.

A causal convolution is padded only on the left; a transposed one is cut only on the right. So the output at a time
depends on the input up to that time, rounded up to a stride.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from toolkit.nn.context import reads

KERNEL = 7
"""Of the first and the last convolution."""
DILATIONS = (1, 3, 9)
"""Of the residual blocks between two strides."""


class PaddedConv(nn.Module):
    """A convolution from ``n`` positions to ``n / stride``."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1, causal: bool
    ) -> None:
        super().__init__()
        self.conv = weight_norm(nn.Conv1d(inputs, outputs, kernel, stride=stride, dilation=dilation))
        padding = (kernel - 1) * dilation + 1 - stride
        self.padding = (padding, 0) if causal else (padding - padding // 2, padding // 2)

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it."""
        before, after = reads([self.conv], first, last)
        return before - self.padding[0], after - self.padding[0]

    def forward(self, h: Tensor) -> Tensor:
        output: Tensor = self.conv(F.pad(h, self.padding))
        return output


class PaddedUp(nn.Module):
    """A transposed convolution of window ``2 * stride`` from ``n`` positions to ``n * stride``."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, causal: bool) -> None:
        super().__init__()
        self.conv = weight_norm(nn.ConvTranspose1d(inputs, outputs, 2 * stride, stride=stride))
        self.cut = (0, stride) if causal else (stride - stride // 2, stride // 2)

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it."""
        return reads([self.conv], first + self.cut[0], last + self.cut[0])

    def forward(self, h: Tensor) -> Tensor:
        output: Tensor = self.conv(h)
        return output[..., self.cut[0] : output.shape[-1] - self.cut[1]]


class ResidualUnit(nn.Module):
    """ELU, dilated 3-wide convolution to half of the channels, ELU, 1-wide one, added to the input."""

    def __init__(self, channels: int, dilation: int, *, causal: bool) -> None:
        super().__init__()
        half = max(1, channels // 2)
        self.wide = PaddedConv(channels, half, 3, dilation=dilation, causal=causal)
        self.narrow = PaddedConv(half, channels, 1, causal=causal)

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it; the input itself is among what ``wide`` reads."""
        return reads([self.wide, self.narrow], first, last)

    def forward(self, h: Tensor) -> Tensor:
        change: Tensor = self.narrow(F.elu(self.wide(F.elu(h))))
        return h + change


def units(channels: int, *, causal: bool) -> list[nn.Module]:
    return [ResidualUnit(channels, dilation, causal=causal) for dilation in DILATIONS]
