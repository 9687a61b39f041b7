"""Blocks of SEANet, the network of the neural codecs (Tagliasacchi et al. 2020; Zeghidour et al. 2021; Défossez et al.
2022), causal or not.

A causal convolution is padded only on the left; a transposed one is cut only on the right. So the output at a time
depends on the input up to that time, rounded up to a stride.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from typing_extensions import Doc

from toolkit.nn.context import reads
from toolkit.ranges import NonNegativeInt, PositiveInt
from toolkit_audio.kept import KeptConv, KeptUp, Step, streamed
from toolkit_audio.starts import of_units, started

KERNEL = 7
"""Of the first and the last convolution."""

Padding = Annotated[
    Literal["zeros", "reflect"],
    Doc(
        "what lies beyond the ends: silence, or the sound backwards. Then the first latents know what comes later, also"
        " where convolutions are causal, so that nothing can be streamed."
    ),
]
Norm = Annotated[
    Literal["weight", "group", "none"],
    Doc(
        "of convolutions: their weights' norms are parameters of their own (Salimans & Kingma 2016); what they give is"
        " normalized over time and channels together, which is not causal; or neither."
    ),
]
Dilations = Annotated[tuple[PositiveInt, ...], Doc("of the residual units beside each stride, one unit for each.")]
ResidualKernel = Annotated[PositiveInt, Doc("window of a residual unit's first convolution.")]
Shortcut = Annotated[bool, Doc("whether the input of a residual unit is added through a 1-wide convolution.")]
LSTMLayers = Annotated[
    NonNegativeInt, Doc("layers of an LSTM where there are fewest positions, whose input is added to what it gives.")
]
LastKernel = Annotated[PositiveInt, Doc("window of the last convolution.")]


@dataclass(frozen=True)
class Style:
    """What all convolutions of a network have in common."""

    causal: bool = False
    padding: Padding = "zeros"
    norm: Norm = "weight"

    def __post_init__(self) -> None:
        if self.causal and self.norm == "group":
            raise ValueError(
                "norm=group: it knows all of the sound, which is not causal: choose weight or causal=false"
            )

    @property
    def streams(self) -> bool:
        """Whether an output depends on what is near only, at the ends, too."""
        return self.padding == "zeros" and self.norm != "group"

    def normalized(self, conv: nn.Module) -> nn.Module:
        """A convolution whose weights have the norm, where the norm is theirs."""
        return weight_norm(conv) if self.norm == "weight" else conv

    def norm_of(self, channels: int) -> nn.Module:
        """What comes after a convolution to so many channels."""
        return nn.GroupNorm(1, channels) if self.norm == "group" else nn.Identity()

    def pad(self, h: Tensor, left: int, right: int) -> Tensor:
        """h ``(batch, channels, positions)`` with so many more at its ends."""
        return reflected(h, left, right) if self.padding == "reflect" else F.pad(h, (left, right))


def reflected(h: Tensor, left: int, right: int) -> Tensor:
    """h ``(batch, channels, positions)`` with what lies beside its first and last position, backwards, beyond them.

    Where it is too short, zeros are beyond its other end. As no operation depends on the length, it is free in a graph.
    """
    before = F.pad(h[..., 1 : left + 1], (0, left))[..., :left].flip(-1)
    after = F.pad(h[..., -right - 1 : -1], (right, 0))
    after = after[..., after.shape[-1] - right :].flip(-1)
    return torch.cat([before, h, after], -1)


class PaddedConv(nn.Module):
    """A convolution from ``n`` positions to ``n / stride``."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        style: Style,
        *,
        stride: int = 1,
        dilation: int = 1,
        gain: float = 1.0,
    ) -> None:
        """``gain``: of its first weights, as ``toolkit_audio.starts`` has it."""
        super().__init__()
        conv = nn.Conv1d(inputs, outputs, kernel, stride=stride, dilation=dilation)
        self.conv = style.normalized(started(conv, gain))
        self.norm, self.style = style.norm_of(outputs), style
        padding = (kernel - 1) * dilation + 1 - stride
        self.padding = (padding, 0) if style.causal else (padding - padding // 2, padding // 2)

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it, but for what the norm reads."""
        before, after = reads([self.conv], first, last)
        return before - self.padding[0], after - self.padding[0]

    def stream(self) -> Step:
        """As toolkit_audio.kept has it; where it is causal and ``Style.streams``."""
        return KeptConv(self.conv, self.padding[0])  # type: ignore[arg-type]

    def forward(self, h: Tensor) -> Tensor:
        output: Tensor = self.norm(self.conv(self.style.pad(h, *self.padding)))
        return output


class PaddedUp(nn.Module):
    """A transposed convolution of window ``2 * stride`` from ``n`` positions to ``n * stride``."""

    def __init__(self, inputs: int, outputs: int, stride: int, style: Style) -> None:
        super().__init__()
        conv = nn.ConvTranspose1d(inputs, outputs, 2 * stride, stride=stride)
        self.conv = style.normalized(started(conv, share=stride))
        self.norm = style.norm_of(outputs)
        self.cut = (0, stride) if style.causal else (stride - stride // 2, stride // 2)

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it, but for what the norm reads."""
        return reads([self.conv], first + self.cut[0], last + self.cut[0])

    def stream(self) -> Step:
        """As toolkit_audio.kept has it; where it is causal and ``Style.streams``."""
        return KeptUp(self.conv)  # type: ignore[arg-type]

    def forward(self, h: Tensor) -> Tensor:
        output: Tensor = self.norm(self.conv(h))
        return output[..., self.cut[0] : output.shape[-1] - self.cut[1]]


class ResidualUnit(nn.Module):
    """ELU, dilated convolution to half of the channels, ELU, 1-wide one, added to the input or to what a 1-wide
    convolution gives of it."""

    def __init__(
        self,
        channels: int,
        dilation: int,
        style: Style,
        *,
        kernel: int = 3,
        shortcut: bool = False,
        gain: float = 1.0,
    ) -> None:
        """``gain``: of what it adds, in the beginning."""
        super().__init__()
        half = max(1, channels // 2)
        self.wide = PaddedConv(channels, half, kernel, style, dilation=dilation)
        self.narrow = PaddedConv(half, channels, 1, style, gain=gain)
        self.shortcut = PaddedConv(channels, channels, 1, style) if shortcut else nn.Identity()

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it; the input itself is among what ``wide`` reads."""
        return reads([self.wide, self.narrow], first, last)

    def stream(self) -> Step:
        """As toolkit_audio.kept has it; where it is causal and ``Style.streams``."""
        elu = nn.ELU()
        change, shortcut = streamed([elu, self.wide, elu, self.narrow]), streamed([self.shortcut])
        return lambda h: shortcut(h) + change(h)

    def forward(self, h: Tensor) -> Tensor:
        change: Tensor = self.narrow(F.elu(self.wide(F.elu(h))))
        output: Tensor = self.shortcut(h) + change
        return output


class Recurrent(nn.Module):
    """Layers of an LSTM over time, added to their input."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, layers)

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, channels, positions)``."""
        steps = h.permute(2, 0, 1)
        start = steps.new_zeros(self.lstm.num_layers, *steps.shape[1:])
        output: Tensor = self.lstm(steps, (start, start))[0] + steps
        return output.permute(1, 2, 0)


def units(
    channels: int, dilations: Sequence[int], style: Style, *, kernel: int = 3, shortcut: bool = False
) -> list[nn.Module]:
    """Residual units one after the other."""
    gain = of_units(len(dilations)) if dilations else 1.0
    return [
        ResidualUnit(channels, dilation, style, kernel=kernel, shortcut=shortcut, gain=gain) for dilation in dilations
    ]


def recurrent(channels: int, layers: int) -> list[nn.Module]:
    """The LSTM, if it has any layers."""
    return [Recurrent(channels, layers)] if layers else []
