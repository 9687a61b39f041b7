"""Causal convolutions over chunks that follow one another: each keeps the end of a chunk, in place of padding.

What a chunk costs does not depend on what came before it. Weights are read once, when a stream begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, final, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Step = Callable[[Tensor], Tensor]
"""A chunk ``(batch, channels, positions)``, a whole number of strides, to its outputs; called in order."""


@runtime_checkable
class Streamed(Protocol):
    """A module whose outputs depend on what came before a chunk."""

    def stream(self) -> Step:
        """A new stream through it."""


def streamed(layers: Iterable[nn.Module]) -> Step:
    """A new stream through layers in their order, of which the others work on each position by itself."""
    steps = [layer.stream() if isinstance(layer, Streamed) else layer for layer in layers]

    def through(h: Tensor) -> Tensor:
        for step in steps:
            h = step(h)
        return h

    return through


@final
class KeptConv:
    """A convolution with so many positions ``before`` the first one, which are zeros."""

    def __init__(self, conv: nn.Conv1d, before: int) -> None:
        self.weight, self.bias = _weights(conv)
        self.stride, self.dilation, self.before = conv.stride, conv.dilation, before
        self.past: Tensor | None = None

    def __call__(self, h: Tensor) -> Tensor:
        if self.before:
            past = h.new_zeros(*h.shape[:2], self.before) if self.past is None else self.past
            h = torch.cat([past, h], 2)
            self.past = h[:, :, -self.before :].clone()
        return F.conv1d(h, self.weight, self.bias, self.stride, 0, self.dilation)


@final
class KeptUp:
    """A transposed convolution of window ``2 * stride``, without the last ``stride`` of its outputs."""

    def __init__(self, conv: nn.ConvTranspose1d) -> None:
        self.weight, self.bias = _weights(conv)
        self.stride = conv.stride[0]
        self.past: Tensor | None = None

    def __call__(self, h: Tensor) -> Tensor:
        past = h.new_zeros(*h.shape[:2], 1) if self.past is None else self.past
        self.past = h[:, :, -1:].clone()
        output = F.conv_transpose1d(torch.cat([past, h], 2), self.weight, self.bias, self.stride)
        return output[:, :, self.stride : -self.stride]


def _weights(conv: nn.Conv1d | nn.ConvTranspose1d) -> tuple[Tensor, Tensor | None]:
    """As they are applied, whatever they are computed from."""
    return conv.weight.detach(), None if conv.bias is None else conv.bias.detach()
