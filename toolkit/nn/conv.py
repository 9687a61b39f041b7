"""Convolutions of any rank, and the strided pairs that encoders and decoders are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import TypeVar

import torch
from torch import nn

S = TypeVar("S")
"""A stride: a number, or one for each axis."""

CONV: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
CONV_TRANSPOSE: dict[int, type[nn.Module]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def conv(rank: int, inputs: int, outputs: int, kernel: int) -> nn.Module:
    """A convolution that keeps the grid; ``kernel`` is odd."""
    return started(CONV[rank](inputs, outputs, kernel, padding=kernel // 2))


def down(rank: int, inputs: int, outputs: int, stride: int) -> nn.Module:
    """A convolution from ``n`` positions to exactly ``n / stride``; its window is 4 at stride 2, as in the paper."""
    window, padding = _window(stride)
    return started(CONV[rank](inputs, outputs, window, stride=stride, padding=padding))


def up(rank: int, inputs: int, outputs: int, stride: int) -> nn.Module:
    """A transposed convolution from ``n`` positions to exactly ``n * stride``."""
    window, padding = _window(stride)
    return started(CONV_TRANSPOSE[rank](inputs, outputs, window, stride=stride, padding=padding), stride**rank)


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
    """The mirror: transposed layers with a ReLU between them, of which the last changes the channels."""
    if not strides:
        return nn.Sequential(plain(inputs, outputs))
    layers: list[nn.Module] = []
    for stride in strides[:-1]:
        layers += [strided(inputs, inputs, stride), nn.ReLU()]
    return nn.Sequential(*layers, strided(inputs, outputs, strides[-1]))


def _window(stride: int) -> tuple[int, int]:
    """Window about twice the stride, and the padding at which lengths divide exactly."""
    window = 2 * stride + stride % 2
    return window, (window - stride) // 2


def started(layer: nn.Module, share: int = 1) -> nn.Module:
    """Normal weights of standard deviation 1 / sqrt(fan-in), cut at two of them, and no bias.

    Of a transposed convolution's window an output sees only one ``share``-th.

    PyTorch's default has less than half of that variance, so deep stacks start with faint activations; with it the
    codebook of a VQ-VAE is used less and its error falls more slowly.
    """
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    assert isinstance(layer.bias, torch.Tensor)
    fan_in = layer.in_channels * weight[0, 0].numel() / share  # type: ignore[operator]
    nn.init.trunc_normal_(weight, std=1 / sqrt(fan_in), a=-2 / sqrt(fan_in), b=2 / sqrt(fan_in))
    nn.init.zeros_(layer.bias)
    return layer
