"""The gated PixelCNN (van den Oord et al. 2016, arXiv:1606.05328), for grids of one to three axes.

The paper's vertical and horizontal stack, carried on to any rank: there is one stack per axis, and stack
``a`` sees what lies before a position along axis ``a``, with the same index on all earlier axes and any on
the later ones. Each stack reads the one before it, so that together they see exactly the past of the raster
order. No kernel is masked: shifting a stack's input by one along its axis, and padding on the left, keeps it
causal.

Position by position, stack ``a`` moves on by a slab of the axes after it, and only where its own axis does: the outer
stacks as convolutions once per plane or row, the last one, whose slab is a single position, as a chain of products.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod, sqrt
from typing import TYPE_CHECKING, NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.causal.gated import Chain, chain, halve_gates, run
from toolkit.causal.network import Trunk, shift
from toolkit.errors import ToolkitError


class State(NamedTuple):
    """What the stacks remember; the slabs of stack ``a`` are of the axes ``grid[a+1:]``."""

    grid: tuple[int, ...]
    context: Tensor | None
    """``(*axes, batch, channels)``."""
    filled: list[Tensor]
    """What stands in each stack's slab so far: ``(positions, batch, hidden)``."""
    given: list[Tensor]
    """What the stack before adds to each: ``(layers, grid[a], positions * batch, 2 hidden)``; to the first stack of a
    grid with one axis, what the context adds."""
    outer: list[Slabs]
    last: Last


class Slabs(NamedTuple):
    """An outer stack, whose step is a slab of ``planes`` times ``places`` positions, one of them 1 for a row.

    What a tap of the kernel sees from all positions lies together in memory: so a convolution is a product per tap,
    and nothing is copied for it.
    """

    weight: list[list[Tensor]]
    """Of each layer and tap: ``(planes, taps * hidden, 2 hidden)``."""
    out: list[Tensor]
    link: Tensor | None
    bias: Tensor
    inputs: list[Tensor]
    """The last inputs of each layer, with zeros around: ``(planes, places, batch, taps, hidden)``."""
    insides: list[Tensor]
    """The same without what is around."""
    seen: list[list[Tensor]]
    """Of each layer, what a tap sees: ``(planes, places * batch, taps * hidden)``."""
    sums: Tensor
    """The y of every layer: ``(layers, planes, places * batch, 2 hidden)``."""


class Last(NamedTuple):
    """The last stack, whose step is a single position."""

    chain: Chain
    link: Tensor | None
    bias: Tensor
    past: Tensor
    """Of all taps but the current one: ``(layers, (taps - 1) hidden, 2 hidden)``."""
    window: Tensor
    """The last inputs of each layer: ``(layers, batch, taps - 1, hidden)``."""


@final
class PixelCNN(Trunk):
    """A stack of gated layers per axis. Not bound to a grid, only to its rank.

    Args:
        context: channels of the context that is given at every position (0: there is none).
        kernel_size: a layer sees ``kernel_size // 2`` positions further, in every direction that is past.
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
            _Stack(rank - 1 - axis, source, hidden, layers, kernel_size, dropout, axis == 0)
            for axis, source in enumerate(sources)
        )

    def forward(self, embedded: Tensor, context: Tensor | None = None) -> Tensor:
        sources: Sequence[Tensor | None] = [context] * len(self.stacks[0].weight)
        for axis, stack in enumerate(self.stacks):
            x, sources = stack(shift(embedded, axis), sources)
        return x.movedim(1, -1)

    def init(self, batch: int, grid: Sequence[int], context: Tensor | None = None) -> State:
        grid, axes = tuple(grid), range(len(self.stacks))
        bias = self.stacks[0].bias
        filled = [bias.new_zeros(prod(grid[axis + 1 :]), batch, self.channels) for axis in axes]
        given = [
            bias.new_zeros(len(bias), grid[axis], len(rows) * batch, bias.shape[1]) for axis, rows in enumerate(filled)
        ]
        outer = [self.stacks[axis].slabs(batch, grid[axis + 1 :]) for axis in axes[:-1]]
        last = self.stacks[-1].last(batch)
        whole = None if context is None else context.movedim((0, 1), (-2, -1))
        given[0] = _linked(last, whole) if len(grid) == 1 else bias.new_zeros(0)
        return State(grid, whole, filled, given, outer, last)

    def key(self, grid: Sequence[int], position: int, few: bool = False) -> int:
        """The first axis along which a position differs from the one before it."""
        axis = len(grid) - 1
        while axis and position % grid[axis] == 0:
            position //= grid[axis]
            axis -= 1
        return axis

    def advance(self, state: State, key: int, position: Tensor) -> Tensor:
        for axis in range(key, len(state.grid) - 1):
            self._slab(state, axis, axis > key, position)
        return self._position(state, key, position)

    def absorb(self, state: State, position: Tensor, embedded: Tensor) -> None:
        for filled in state.filled[:-1]:
            filled.index_copy_(0, position % len(filled), embedded.unsqueeze(0))
        state.filled[-1].copy_(embedded)

    def _slab(self, state: State, axis: int, first: bool, position: Tensor) -> None:
        """Moves an outer stack on by a slab, the ``first`` one along its axis or a later."""
        slabs, x = state.outer[axis], state.filled[axis]
        if first:
            x = torch.zeros_like(x)
            for inputs in slabs.inputs:
                inputs.zero_()
        index = _index(state.grid, axis, position)
        given = self._first(state, slabs, index) if axis == 0 else state.given[axis].index_select(1, index)
        slabs.sums.flatten(1, 2).unsqueeze(1).copy_(given)
        _through(slabs, x.flatten(0, 1))
        after = state.last if axis + 2 == len(state.grid) else state.outer[axis + 1]
        assert after.link is not None
        made = torch.baddbmm(after.bias, slabs.sums.flatten(1, 2), after.link.transpose(1, 2))
        state.given[axis + 1].copy_(made.view_as(state.given[axis + 1]))

    def _first(self, state: State, slabs: Slabs, index: Tensor) -> Tensor:
        """``b + link(context)`` of the first stack over a slab: ``(layers, 1, positions * batch or 1, 2 hidden)``."""
        context, rest = state.context, state.grid[1:]
        if context is not None:
            slab = context[0] if len(context) == 1 else context.index_select(0, index)[0]
            context = slab.expand(*rest, *slab.shape[-2:])
        return _linked(slabs, context).flatten(1, -2).unsqueeze(1)

    def _position(self, state: State, key: int, position: Tensor) -> Tensor:
        """The last stack, at one position."""
        last, axis = state.last, len(state.grid) - 1
        if key == axis:
            last.chain.inputs[0].copy_(state.filled[axis][0])
        else:
            last.chain.inputs[0].zero_()
            last.window.zero_()
        given = state.given[axis]
        if given.shape[1] > 1:
            given = given.index_select(1, _index(state.grid, axis, position))
        inputs, _ = run(last.chain, given[:, 0], last.window.flatten(2), last.past)
        for tap in range(last.window.shape[2] - 1):
            last.window[:, :, tap].copy_(last.window[:, :, tap + 1])
        last.window[:, :, -1].copy_(inputs[:-1])
        return inputs[-1]


class _Stack(nn.Module):
    """The gated residual layers of one axis: causal along it, centred along the ``later`` axes after it.

    Layer: ``y = W * x + b + link(source)``, ``x += out(tanh(y_1) sigmoid(y_2))`` (equation 2). The source is
    the ``y`` of the stack before, in the same layer, or for the first stack the context (equation 4), which
    so reaches the gates of every layer and stack.
    """

    def __init__(
        self, later: int, source: int, hidden: int, layers: int, kernel_size: int, dropout: float, first: bool
    ) -> None:
        super().__init__()
        self.first = first
        taps = kernel_size // 2 + 1
        # The taps stand before the channels, so that a step can read both as channels without a copy.
        self.weight = _parameter(layers, 2 * hidden, taps, hidden, *[kernel_size] * later)
        self.bias = nn.Parameter(torch.zeros(layers, 2 * hidden))
        self.link = _parameter(layers, 2 * hidden, source) if source else None
        self.out = _parameter(layers, hidden, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, sources: Sequence[Tensor | None]) -> tuple[Tensor, list[Tensor]]:
        """The last layer's output, and the ``y`` of every layer: ``(batch, channels, *grid)``."""
        ys = []
        for layer, source in enumerate(sources):
            y = self._past(layer, x) + self._given(layer, source, x.ndim - 2)
            x = x + _pointwise(self.dropout(_gate(y)), self.out[layer])
            ys.append(y)
        return x, ys

    if TYPE_CHECKING:
        __call__ = forward

    def slabs(self, batch: int, rest: tuple[int, ...]) -> Slabs:
        """Weights and buffers of an outer stack, for slabs of the axes ``rest``."""
        layers, channels, taps, hidden, *kernel = self.weight.shape
        if len(rest) == 1:
            rest, kernel = (1, *rest), [1, *kernel]
        padded = [size + width - 1 for size, width in zip(rest, kernel, strict=True)]
        inputs = [self.weight.new_zeros(*padded, batch, taps, hidden) for _ in range(layers)]
        offsets = list(product(*map(range, kernel)))
        planes, places = rest
        folded = halve_gates(self.weight).reshape(layers, channels, taps * hidden, -1).permute(0, 3, 2, 1).contiguous()
        return Slabs(
            [[tap.expand(planes, -1, -1) for tap in layer] for layer in folded],
            list(self.out.transpose(1, 2).contiguous() / 2),
            self._folded_link(),
            halve_gates(self.bias).unsqueeze(1),
            inputs,
            [_part(each, [width // 2 for width in kernel], rest) for each in inputs],
            [[_part(each, offset, rest).view(planes, places * batch, -1) for offset in offsets] for each in inputs],
            self.weight.new_zeros(layers, planes, places * batch, channels),
        )

    def last(self, batch: int) -> Last:
        """Weights and buffers of the last stack."""
        *_, taps, hidden = self.weight.shape
        return Last(
            chain(self.weight[:, :, -1], self.out, batch),
            self._folded_link(),
            halve_gates(self.bias).unsqueeze(1),
            halve_gates(self.weight[:, :, :-1].flatten(2)).transpose(1, 2).contiguous(),
            self.weight.new_zeros(len(self.weight), batch, taps - 1, hidden),
        )

    def _folded_link(self) -> Tensor | None:
        """``(layers, 2 hidden, source)``; where the source is the stack before, its gates come halved."""
        if self.link is None:
            return None
        link = halve_gates(self.link)
        if self.first:
            return link
        values, gates = link.chunk(2, 2)
        return torch.cat((values, 2 * gates), 2)

    def _given(self, layer: int, source: Tensor | None, rank: int) -> Tensor:
        bias = self.bias[layer].reshape(1, -1, *[1] * rank)
        if self.link is None or source is None:
            return bias
        return bias + _pointwise(source, self.link[layer])

    def _past(self, layer: int, x: Tensor) -> Tensor:
        weight = self.weight[layer].transpose(1, 2)
        taps, later = weight.shape[2], weight.shape[3:]
        rank = x.ndim - 2
        before = rank - 1 - len(later)
        x = F.pad(x, [0, 0] * len(later) + [taps - 1, 0])
        weight = weight.reshape(*weight.shape[:2], *[1] * before, *weight.shape[2:])
        return _convolve(x, weight, [0] * (before + 1) + [size // 2 for size in later])


def _through(slabs: Slabs, x: Tensor) -> None:
    """A slab x ``(positions * batch, hidden)`` through all layers, onto what is given to their y in ``slabs.sums``."""
    layers = zip(slabs.weight, slabs.out, slabs.insides, slabs.seen, slabs.sums, strict=True)
    for weight, out, inside, seen, y in layers:
        for tap in range(inside.shape[-2] - 1):
            inside[..., tap, :].copy_(inside[..., tap + 1, :])
        inside[..., -1, :].copy_(x.view(*inside.shape[:-2], -1))
        for part, tap_weight in zip(seen, weight, strict=True):
            y.baddbmm_(part, tap_weight)
        values, gates = y.flatten(0, 1).tanh().chunk(2, 1)
        x = torch.addmm(x, torch.addcmul(values, values, gates), out)


def _part(whole: Tensor, start: Sequence[int], size: Sequence[int]) -> Tensor:
    """A view of the first axes of a tensor."""
    for axis, (first, length) in enumerate(zip(start, size, strict=True)):
        whole = whole.narrow(axis, first, length)
    return whole


def _linked(stack: Slabs | Last, context: Tensor | None) -> Tensor:
    """``b + link(context)`` of a first stack: ``(layers, *axes, batch, 2 hidden)``, of ``(*axes, batch, channels)``."""
    if stack.link is None or context is None:
        return stack.bias.unsqueeze(1)
    rows = context.flatten(0, -2)
    linked = torch.matmul(rows, stack.link.transpose(1, 2)) + stack.bias
    made: Tensor = linked.unflatten(1, context.shape[:-1])
    return made


def _index(grid: tuple[int, ...], axis: int, position: Tensor) -> Tensor:
    """Where a position stands along an axis, ``(1,)``."""
    after = prod(grid[axis + 1 :])
    slab = position if after == 1 else position // after
    return slab if axis == 0 else slab % grid[axis]


def _check(rank: int, kernel_size: int, layers: int) -> None:
    if not 1 <= rank <= 3:
        raise ToolkitError(f"a PixelCNN works on grids of 1 to 3 axes, this one has {rank}: take another network")
    if kernel_size < 3 or kernel_size % 2 == 0:
        raise ToolkitError(f"kernel_size={kernel_size}: a PixelCNN needs an odd number of at least 3")
    if layers < 1:
        raise ToolkitError(f"layers={layers}: a PixelCNN needs at least 1")


def _parameter(layers: int, channels: int, *inputs: int) -> nn.Parameter:
    """Weights of all layers, uniform as in torch's own layers: within 1/sqrt of the inputs' number."""
    bound = 1 / sqrt(prod(inputs))
    return nn.Parameter(torch.empty(layers, channels, *inputs).uniform_(-bound, bound))


def _convolve(x: Tensor, weight: Tensor, padding: list[int]) -> Tensor:
    """A convolution along all axes of x ``(batch, channels, *axes)``."""
    match x.ndim - 2:
        case 1:
            return F.conv1d(x, weight, padding=padding)
        case 2:
            return F.conv2d(x, weight, padding=padding)
        case _:
            return F.conv3d(x, weight, padding=padding)


def _pointwise(x: Tensor, weight: Tensor) -> Tensor:
    rank = x.ndim - 2
    return _convolve(x, weight.reshape(*weight.shape, *[1] * rank), [0] * rank)


def _gate(y: Tensor) -> Tensor:
    values, gates = y.chunk(2, 1)
    return values.tanh() * gates.sigmoid()
