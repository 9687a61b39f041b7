"""What a stack of convolutions reads along its first axis, from its kernels, strides and paddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import nn

from toolkit.nn.conv import CONV, CONV_TRANSPOSE


@runtime_checkable
class Reads(Protocol):
    """A module of which not all that mixes positions is a convolution's own: one that pads or cuts, for instance."""

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """First and last position along axis 0 of its input that the outputs ``first`` to ``last`` depend on.

        As if the axis went on for ever: padding has positions, too, and the first of them may be negative.
        """


def encoder_context(stride: int, layers: Sequence[nn.Module]) -> tuple[int, int]:
    """``Encoder.context`` of layers, in their order, that make a position of z for each ``stride`` of x."""
    first, last = reads(layers, 0, 0)
    return max(0, -first), max(0, last - stride + 1)


def decoder_context(stride: int, layers: Sequence[nn.Module]) -> tuple[int, int]:
    """``Decoder.context`` of layers, in their order, that make ``stride`` positions of x for each of z."""
    first, last = reads(layers, 0, stride - 1)
    return max(0, -first), max(0, last)


def reads(layers: Sequence[nn.Module], first: int, last: int) -> tuple[int, int]:
    """What the outputs ``first`` to ``last`` of layers, in their order, depend on, as ``Reads.reads`` has it."""
    for layer in reversed(layers):
        first, last = _layer_reads(layer, first, last)
    return first, last


def _layer_reads(layer: nn.Module, first: int, last: int) -> tuple[int, int]:
    """A module that is neither a convolution nor made of them works on every position by itself."""
    if isinstance(layer, Reads):
        return layer.reads(first, last)
    if isinstance(layer, nn.Sequential):
        return reads(list(layer), first, last)
    if isinstance(layer, tuple(CONV_TRANSPOSE.values())):
        stride, padding, span = _along_axis_0(layer)
        return -((span - first - padding) // stride), (last + padding) // stride
    if isinstance(layer, tuple(CONV.values())):
        stride, padding, span = _along_axis_0(layer)
        return first * stride - padding, last * stride - padding + span
    return first, last


def _along_axis_0(convolution: Any) -> tuple[int, int, int]:
    """Stride, padding, and positions from the kernel's first tap to its last."""
    span = convolution.dilation[0] * (convolution.kernel_size[0] - 1)
    return convolution.stride[0], convolution.padding[0], span
