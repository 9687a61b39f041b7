"""Causal convolutions as they are, without a norm of their weights: the blocks of Mimi's SEANet (Défossez et al. 2024).

A convolution is padded only on the left; a transposed one is cut only on the right. So the output at a time depends on
the input up to that time, rounded up to a stride.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from toolkit.nn.context import reads
from toolkit.ranges import PositiveInt
from toolkit_audio.starts import of_units, started

KERNEL = 7
"""Of the first convolution."""
LAST_KERNEL = 3
"""Of the last one, and of a residual unit's first."""

Dilations = Annotated[tuple[PositiveInt, ...], Doc("of the residual units beside a stride, one unit each.")]


class CausalConv(nn.Module):
    """A convolution from ``n`` positions to ``n / stride``; ``before`` the first one there are zeros, or its copies."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = True,
        before: Literal["constant", "replicate"] = "constant",
        gain: float = 1.0,
    ) -> None:
        """``gain``: of its first weights, as ``toolkit_audio.starts`` has it."""
        super().__init__()
        self.conv = started(nn.Conv1d(inputs, outputs, kernel, stride=stride, dilation=dilation, bias=bias), gain)
        self.padding, self.before = (kernel - 1) * dilation + 1 - stride, before

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it."""
        before, after = reads([self.conv], first, last)
        return before - self.padding, after - self.padding

    def forward(self, h: Tensor) -> Tensor:
        padded = F.pad(h, (self.padding, 0), mode=self.before) if self.padding else h
        output: Tensor = self.conv(padded)
        return output


class CausalUp(nn.Module):
    """A transposed convolution of window ``2 * stride`` from ``n`` positions to ``n * stride``."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, groups: int = 1, bias: bool = True) -> None:
        super().__init__()
        conv = nn.ConvTranspose1d(inputs, outputs, 2 * stride, stride=stride, groups=groups, bias=bias)
        self.conv = started(conv, share=stride)
        self.stride = stride

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it."""
        return reads([self.conv], first, last)

    def forward(self, h: Tensor) -> Tensor:
        output: Tensor = self.conv(h)
        return output[..., : output.shape[-1] - self.stride]


class CausalUnit(nn.Module):
    """ELU, dilated 3-wide convolution to half of the channels, ELU, 1-wide one, added to the input."""

    def __init__(self, channels: int, dilation: int, gain: float = 1.0) -> None:
        """``gain``: of what it adds, in the beginning."""
        super().__init__()
        half = max(1, channels // 2)
        self.wide = CausalConv(channels, half, LAST_KERNEL, dilation=dilation)
        self.narrow = CausalConv(half, channels, 1, gain=gain)

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it; the input itself is among what ``wide`` reads."""
        return reads([self.wide, self.narrow], first, last)

    def forward(self, h: Tensor) -> Tensor:
        change: Tensor = self.narrow(F.elu(self.wide(F.elu(h))))
        return h + change


def causal_units(channels: int, dilations: Sequence[int]) -> list[nn.Module]:
    """Residual units, one after the other."""
    gain = of_units(len(dilations)) if dilations else 1.0
    return [CausalUnit(channels, dilation, gain) for dilation in dilations]
