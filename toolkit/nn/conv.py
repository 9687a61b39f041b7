"""Convolutions of any rank, and the strided stacks of encoders and decoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Annotated, Literal, TypeVar, final

import torch
from torch import Tensor, nn
from typing_extensions import Doc

S = TypeVar("S")
"""A stride: a number, or one per axis."""

CONV: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
CONV_TRANSPOSE: dict[int, type[nn.Module]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def conv(rank: int, inputs: int, outputs: int, kernel: int) -> nn.Module:
    """A convolution that keeps the grid; ``kernel`` is odd."""
    return started(CONV[rank](inputs, outputs, kernel, padding=kernel // 2))


def down(rank: int, inputs: int, outputs: int, stride: int) -> nn.Module:
    """A convolution from ``n`` positions to exactly ``n / stride``; its kernel is 4 at stride 2, as in the paper."""
    kernel, padding = _kernel(stride)
    return started(CONV[rank](inputs, outputs, kernel, stride=stride, padding=padding))


def up(rank: int, inputs: int, outputs: int, stride: int) -> nn.Module:
    """A transposed convolution from ``n`` positions to exactly ``n * stride``."""
    kernel, padding = _kernel(stride)
    return started(CONV_TRANSPOSE[rank](inputs, outputs, kernel, stride=stride, padding=padding), stride**rank)


@final
class Repeat(nn.Module):
    """Each position ``stride`` times along every axis: nearest-neighbor interpolation."""

    def __init__(self, rank: int, stride: int) -> None:
        super().__init__()
        self.rank, self.stride = rank, stride

    def forward(self, x: Tensor) -> Tensor:
        """x ``(batch, channels, …)``, to ``stride`` times as many positions along each axis."""
        for axis in range(2, 2 + self.rank):
            x = x.repeat_interleave(self.stride, axis)
        return x

    def reads(self, first: int, last: int) -> tuple[int, int]:
        return first // self.stride, last // self.stride


def repeated(rank: int, inputs: int, outputs: int, stride: int) -> nn.Module:
    """Each position ``stride`` times along every axis, then a convolution, 3 wide at stride 2: what is even stays even
    (Odena et al. 2016, doi:10.23915/distill.00003)."""
    return nn.Sequential(Repeat(rank, stride), conv(rank, inputs, outputs, 2 * max(1, stride // 2) + 1))


UP: dict[str, Callable[[int, int, int, int], nn.Module]] = {"transposed": up, "nearest": repeated}
Up = Annotated[
    Literal["transposed", "nearest"],
    Doc("how the grid grows: by transposed convolutions, or by repeating positions before a plain one."),
]


def down_stack(
    inputs: int,
    outputs: int,
    strides: Sequence[S],
    strided: Callable[[int, int, S], nn.Module],
    plain: Callable[[int, int], nn.Module],
) -> nn.Sequential:
    """Strided layers, of ``(inputs, outputs, stride)``, with a ReLU between them; without strides one plain layer."""
    if not strides:
        return nn.Sequential(plain(inputs, outputs))
    layers = [strided(inputs, outputs, strides[0])]
    for stride in strides[1:]:
        layers += [nn.ReLU(), strided(outputs, outputs, stride)]
    return nn.Sequential(*layers)


def up_stack(
    inputs: int,
    outputs: int,
    strides: Sequence[S],
    strided: Callable[[int, int, S], nn.Module],
    plain: Callable[[int, int], nn.Module],
) -> nn.Sequential:
    """The mirror of ``down_stack``: transposed layers with a ReLU between them; the last changes the channels."""
    if not strides:
        return nn.Sequential(plain(inputs, outputs))
    layers: list[nn.Module] = []
    for stride in strides[:-1]:
        layers += [strided(inputs, inputs, stride), nn.ReLU()]
    return nn.Sequential(*layers, strided(inputs, outputs, strides[-1]))


def _kernel(stride: int) -> tuple[int, int]:
    """A kernel of about twice the stride, and the padding with which lengths divide exactly."""
    kernel = 2 * stride + stride % 2
    return kernel, (kernel - stride) // 2


def started(layer: nn.Module, share: int = 1) -> nn.Module:
    """Initializes a layer: normal weights of deviation 1 / sqrt(fan-in), truncated at two of them, and no bias.

    ``share``: an output of a transposed convolution sees only one ``share``-th of the kernel.

    PyTorch's default has less than half of that variance, so deep stacks start with small activations; with it the
    codebook of a VQ-VAE is used less and its error falls more slowly.
    """
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    fan_in = layer.in_channels // layer.groups * weight[0, 0].numel() / share  # type: ignore[operator]
    nn.init.trunc_normal_(weight, std=1 / sqrt(fan_in), a=-2 / sqrt(fan_in), b=2 / sqrt(fan_in))
    if isinstance(layer.bias, torch.Tensor):
        nn.init.zeros_(layer.bias)
    return layer
