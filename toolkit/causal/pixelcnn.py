"""The gated PixelCNN (van den Oord et al. 2016, arXiv:1606.05328), for grids of one to three axes.

The paper's vertical and horizontal stack, generalized to any rank: there is one stack per axis, and stack ``a`` sees
what is before a position along axis ``a``, with the same index on all earlier axes and any on the later ones. Each
stack reads the one before it, so that together they see exactly the past in raster order. No kernel is masked: shifting
a stack's input by one along its axis, and padding on the left, keeps it causal.

The computation position by position is in ``toolkit.causal.pixelcnn_steps``, that of its state after a prefix in
``toolkit.causal.pixelcnn_prefix``.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt
from typing import TYPE_CHECKING, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.causal import pixelcnn_prefix, pixelcnn_steps
from toolkit.causal.network import Trunk
from toolkit.causal.pixelcnn_steps import PixelCNNState, changed_axis


@final
class PixelCNN(Trunk):
    """A stack of gated layers per axis. Works on any grid of its rank.

    Args:
        context: channels of the context at every position (0: none).
        kernel_size: a layer sees ``kernel_size // 2`` positions further, in every direction of the past.
    """

    stacks: list[_Stack]

    def __init__(
        self,
        rank: int,
        *,
        context: int = 0,
        hidden: int = 128,
        layers: int = 10,
        kernel_size: int = 5,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check(rank, kernel_size, layers)
        self.channels = self.features = hidden
        sources = [context] + [2 * hidden] * (rank - 1)
        self.stacks = nn.ModuleList(  # type: ignore[assignment]
            _Stack(rank - 1 - axis, source, hidden, layers, kernel_size, dropout) for axis, source in enumerate(sources)
        )

    def forward(self, embedded: Tensor, context: Tensor | None = None) -> Tensor:
        source = context
        for stack in self.stacks:
            x, ys = stack(embedded, source)
            source = torch.stack(ys) if stack.later else None
        return x.movedim(1, -1)

    def init(self, batch: int, grid: Sequence[int], context: Tensor | None = None) -> PixelCNNState:
        return pixelcnn_steps.init(self.stacks, batch, grid, context)

    def graph_id(self, grid: Sequence[int], position: int, coarse: bool = False) -> int:
        return changed_axis(grid, position)

    def step(self, state: PixelCNNState, graph_id: int, position: Tensor) -> Tensor:
        return pixelcnn_steps.step(state, graph_id, position)

    def append(self, state: PixelCNNState, position: Tensor, embedded: Tensor) -> None:
        pixelcnn_steps.append(state, position, embedded)

    def prefill(self, state: PixelCNNState, grid: Sequence[int], embedded: Tensor) -> None:
        pixelcnn_prefix.prefill(self.stacks, state, embedded)


class _Stack(nn.Module):
    """The gated residual layers of one axis: causal along it, centered along the ``later`` axes after it.

    Layer: ``y = W * x + b + link(source)``, ``x += out(tanh(y_1) sigmoid(y_2))`` (equation 2). The source is
    the ``y`` of the stack before, in the same layer, or for the first stack the context (equation 4), which
    thus reaches the gates of every layer and stack.
    """

    def __init__(self, later: int, source: int, hidden: int, layers: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
        taps, self.later = kernel_size // 2 + 1, later
        # Taps before channels, so that a step can read both as channels without a copy.
        self.weight = _parameter(layers, 2 * hidden, taps, hidden, *[kernel_size] * later)
        self.bias = nn.Parameter(torch.zeros(layers, 2 * hidden))
        self.link = _parameter(layers, 2 * hidden, source) if source else None
        self.out = _parameter(layers, hidden, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, embedded: Tensor, source: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """The last layer's output, and the ``y`` of every layer: ``(batch, channels, *grid)``.

        ``source``: the context, or the ``y`` of all layers of the stack before, ``(layers, batch, 2 hidden, *grid)``.
        Where a stack follows, which reads the ``y`` alone, the last layer ends with it, and x is its padded input.
        """
        rank = embedded.ndim - 2
        ys: list[Tensor] = []
        own, before, length = 1 + rank - self.later, self.weight.shape[2] - 1, embedded.shape[1 + rank - self.later]
        # A layer's output comes padded for the next one: a pad would be another operation, on all of x.
        padding = [before if axis == own else 0 for axis in range(2, embedded.ndim)]
        x = F.pad(embedded, [0, 0] * self.later + [before + 1, -1])  # and shifted by one
        layers = zip(self.weight.unbind(), *self._added(source, rank), self.out.unbind(), strict=True)
        for left, (weight, bias, given, out) in zip(range(len(self.out))[::-1], layers, strict=True):
            y = self._past(weight, x, bias)
            ys.append(y if given is None else y + given)
            if left:
                added = _pointwise(self.dropout(_gate(ys[-1])), out, padding=padding)
                x = x + added.narrow(own, 0, before + length)
            elif not self.later:
                x = x.narrow(own, before, length) + _pointwise(self.dropout(_gate(ys[-1])), out)
        return x, ys

    def _added(self, source: Tensor | None, rank: int) -> tuple[Sequence[Tensor | None], Sequence[Tensor | None]]:
        """Each layer's bias, where its convolution is to add it, and what the source adds: of all layers at once."""
        layers, channels = self.bias.shape
        if self.link is None or source is None:
            return self.bias.unbind(), [None] * layers
        if source.ndim == rank + 2:  # the context, which all layers share
            linked = _pointwise(source, self.link.flatten(0, 1), self.bias.flatten()).unflatten(1, (layers, channels))
            return [None] * layers, linked.unbind(1)
        given = source.transpose(1, 2)
        linked = torch.baddbmm(self.bias.unsqueeze(2), self.link, given.flatten(2)).view(given.shape)
        return [None] * layers, linked.transpose(1, 2).unbind()

    if TYPE_CHECKING:
        __call__ = forward

    def given(self, layer: int, source: Tensor | None, rank: int) -> Tensor:
        """What the bias and the source add to a layer's y."""
        bias = self.bias[layer].reshape(1, -1, *[1] * rank)
        if self.link is None or source is None:
            return bias
        return bias + _pointwise(source, self.link[layer])

    def residual(self, layer: int, y: Tensor) -> Tensor:
        """What a layer adds to x, without dropout."""
        return _pointwise(_gate(y), self.out[layer])

    def past(self, layer: int, x: Tensor) -> Tensor:
        """What x adds to a layer's y."""
        return self._past(self.weight[layer], F.pad(x, [0, 0] * self.later + [self.weight.shape[2] - 1, 0]))

    def _past(self, weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """The same with the bias, of an x that is padded along the stack's axis."""
        before = x.ndim - 3 - self.later
        weight = weight.transpose(1, 2)
        weight = weight.reshape(*weight.shape[:2], *[1] * before, *weight.shape[2:])
        return _convolve(x, weight, bias, [0] * (before + 1) + [size // 2 for size in weight.shape[3 + before :]])


def _check(rank: int, kernel_size: int, layers: int) -> None:
    if not 1 <= rank <= 3:
        raise ValueError(f"a grid of 1 to 3 axes is needed, this one has {rank}: choose another network")
    if kernel_size < 3 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size={kernel_size}: an odd number of at least 3")
    if layers < 1:
        raise ValueError(f"layers={layers}: at least 1")


def _parameter(layers: int, channels: int, *inputs: int) -> nn.Parameter:
    """Weights of all layers, uniform as in torch's own layers: within 1/sqrt(fan-in)."""
    bound = 1 / sqrt(prod(inputs))
    return nn.Parameter(torch.empty(layers, channels, *inputs).uniform_(-bound, bound))


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int]) -> Tensor:
    """A convolution along all axes of x ``(batch, channels, *axes)``."""
    match x.ndim - 2:
        case 1:
            return F.conv1d(x, weight, bias, padding=padding)
        case 2:
            return F.conv2d(x, weight, bias, padding=padding)
        case _:
            return F.conv3d(x, weight, bias, padding=padding)


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None, padding: Sequence[int] = ()) -> Tensor:
    rank = x.ndim - 2
    weight = weight.reshape(*weight.shape, *[1] * rank)
    return _convolve(x, weight, bias, list(padding) or [0] * rank)


def _gate(y: Tensor) -> Tensor:
    """``tanh(y_1) sigmoid(y_2)``; a gated linear unit is fewer operations than a sigmoid and a product."""
    values, gates = y.chunk(2, 1)
    return F.glu(torch.cat((values.tanh(), gates), 1), 1)
