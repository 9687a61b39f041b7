"""A PixelCNN position by position: the network of ``toolkit.causal.pixelcnn``, with the same weights and result.

Stack ``a`` advances by a slab of the axes after it, and only where the index along its own axis changes: outer stacks
as convolutions, once per plane or row; the last one, whose slab is a single position, as a chain of products. The
folding of the weights is explained in ``toolkit.causal.gated``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from toolkit.causal.gated import Chain, chain, halve_gates, run


class Stack(Protocol):
    """The weights of one axis, as the network has them."""

    @property
    def weight(self) -> Tensor:
        """``(layers, 2 hidden, taps, hidden, *kernel)``; the last tap is the current index along the stack's axis."""

    @property
    def bias(self) -> Tensor:
        """``(layers, 2 hidden)``."""

    @property
    def link(self) -> Tensor | None:
        """``(layers, 2 hidden, source)``."""

    @property
    def out(self) -> Tensor:
        """``(layers, hidden, hidden)``."""


class PixelCNNState(NamedTuple):
    """State of the stacks; the slabs of stack ``a`` are of the axes ``grid[a+1:]``."""

    grid: tuple[int, ...]
    context: Tensor | None
    """``(*axes, batch, channels)``."""
    filled: list[Tensor]
    """Inputs in each stack's slab so far: ``(positions, batch, hidden)``."""
    given: list[Tensor]
    """What the stack before adds to each: ``(layers, grid[a], positions * batch, 2 hidden)``; to the first stack of a
    grid with one axis, what the context adds."""
    outer: list[Slabs]
    last: Last


class Slabs(NamedTuple):
    """An outer stack, whose step is a slab of ``planes`` times ``columns`` positions, one of them 1 for a row.

    The layout of the inputs makes what a tap of the kernel sees from all positions a view of them: a convolution is one
    product per tap, without copies.
    """

    weight: list[list[Tensor]]
    """Per layer and tap: ``(planes, taps * hidden, 2 hidden)``."""
    whole: Tensor
    """The same for all taps of a layer: ``(layers, kernel * taps * hidden, 2 hidden)``."""
    out: list[Tensor]
    link: Tensor | None
    bias: Tensor
    inputs: list[Tensor]
    """The last inputs of each layer, zero-padded: ``(planes, columns, batch, taps, hidden)``."""
    insides: list[Tensor]
    """The same without the padding."""
    seen: list[list[Tensor]]
    """Per layer and tap, what it sees: ``(planes, columns * batch, taps * hidden)``."""
    sums: Tensor
    """The y of every layer: ``(layers, planes, columns * batch, 2 hidden)``."""


class Last(NamedTuple):
    """The last stack, whose step is a single position."""

    chain: Chain
    link: Tensor | None
    bias: Tensor
    past: Tensor
    """Weights of all taps but the current one: ``(layers, (taps - 1) hidden, 2 hidden)``."""
    window: Tensor
    """The last inputs of each layer: ``(layers, batch, taps - 1, hidden)``."""


def init(stacks: Sequence[Stack], batch: int, grid: Sequence[int], context: Tensor | None) -> PixelCNNState:
    """The state before the first position."""
    grid, axes = tuple(grid), range(len(stacks))
    bias, hidden = stacks[0].bias, stacks[0].out.shape[1]
    filled = [bias.new_zeros(prod(grid[axis + 1 :]), batch, hidden) for axis in axes]
    given = [
        bias.new_zeros(len(bias), grid[axis], len(rows) * batch, bias.shape[1]) for axis, rows in enumerate(filled)
    ]
    outer = [_slabs(stacks[axis], axis == 0, batch, grid[axis + 1 :]) for axis in axes[:-1]]
    last = _last(stacks[-1], len(stacks) == 1, batch)
    whole = None if context is None else context.movedim((0, 1), (-2, -1))
    given[0] = _linked(last, whole) if len(grid) == 1 else bias.new_zeros(0)
    return PixelCNNState(grid, whole, filled, given, outer, last)


def changed_axis(grid: Sequence[int], position: int) -> int:
    """The first axis along which a position differs from the one before it."""
    axis = len(grid) - 1
    while axis and position % grid[axis] == 0:
        position //= grid[axis]
        axis -= 1
    return axis


def step(state: PixelCNNState, changed: int, position: Tensor) -> Tensor:
    """The features ``(batch, hidden)`` of a position ``(1,)``, where ``changed`` is the first axis with a new index."""
    for axis in range(changed, len(state.grid) - 1):
        _step_outer(state, axis, axis > changed, position)
    return _step_last(state, changed, position)


def append(state: PixelCNNState, position: Tensor, embedded: Tensor) -> None:
    """Sets the input at the position: ``(batch, hidden)``."""
    for filled in state.filled[:-1]:
        filled.index_copy_(0, position % len(filled), embedded.unsqueeze(0))
    state.filled[-1].copy_(embedded)


def _step_outer(state: PixelCNNState, axis: int, first: bool, position: Tensor) -> None:
    """Advances an outer stack by a slab; ``first``: to the first one along its axis."""
    slabs, x = state.outer[axis], state.filled[axis]
    if first:
        x = torch.zeros_like(x)
        for inputs in slabs.inputs:
            inputs.zero_()
    index = _index(state.grid, axis, position)
    given = _first_given(state, slabs, index) if axis == 0 else state.given[axis].index_select(1, index)
    slabs.sums.flatten(1, 2).unsqueeze(1).copy_(given)
    _through(slabs, x.flatten(0, 1))
    after = state.last if axis + 2 == len(state.grid) else state.outer[axis + 1]
    assert after.link is not None
    linked = torch.baddbmm(after.bias, slabs.sums.flatten(1, 2), after.link.transpose(1, 2))
    state.given[axis + 1].copy_(linked.view_as(state.given[axis + 1]))


def _first_given(state: PixelCNNState, slabs: Slabs, index: Tensor) -> Tensor:
    """``b + link(context)`` of the first stack over a slab: ``(layers, 1, positions * batch or 1, 2 hidden)``."""
    context, later = state.context, state.grid[1:]
    if context is not None:
        slab = context[0] if len(context) == 1 else context.index_select(0, index)[0]
        context = slab.expand(*later, *slab.shape[-2:])
    return _linked(slabs, context).flatten(1, -2).unsqueeze(1)


def _step_last(state: PixelCNNState, changed: int, position: Tensor) -> Tensor:
    """Advances the last stack by a position; its features."""
    last, axis = state.last, len(state.grid) - 1
    if changed == axis:
        last.chain.inputs[:1].copy_(state.filled[axis][:1])
    else:
        last.chain.inputs[:1].zero_()
        last.window.zero_()
    given = state.given[axis]
    if given.shape[1] > 1:
        given = given.index_select(1, _index(state.grid, axis, position))
    inputs, _ = run(last.chain, given[:, 0], last.window.flatten(2), last.past)
    for tap in range(last.window.shape[2] - 1):
        last.window.narrow(2, tap, 1).copy_(last.window.narrow(2, tap + 1, 1))
    last.window.narrow(2, -1, 1).copy_(inputs[:-1].unsqueeze(2))
    return inputs[-1]


def _slabs(stack: Stack, first: bool, batch: int, axes: tuple[int, ...]) -> Slabs:
    """Weights and buffers of an outer stack, for slabs of these axes."""
    layers, channels, taps, hidden, *kernel = stack.weight.shape
    if len(axes) == 1:
        axes, kernel = (1, *axes), [1, *kernel]
    padded = [size + width - 1 for size, width in zip(axes, kernel, strict=True)]
    inputs = [stack.weight.new_zeros(*padded, batch, taps, hidden) for _ in range(layers)]
    offsets = list(product(*map(range, kernel)))
    planes, columns = axes
    folded = halve_gates(stack.weight).reshape(layers, channels, taps * hidden, -1).permute(0, 3, 2, 1).contiguous()
    return Slabs(
        [[tap.expand(planes, -1, -1) for tap in layer] for layer in folded],
        folded.flatten(1, 2),
        list(stack.out.transpose(1, 2).contiguous() / 2),
        _folded_link(stack, first),
        halve_gates(stack.bias).unsqueeze(1),
        inputs,
        [_part(layer, [width // 2 for width in kernel], axes) for layer in inputs],
        [[_part(layer, offset, axes).view(planes, columns * batch, -1) for offset in offsets] for layer in inputs],
        stack.weight.new_zeros(layers, planes, columns * batch, channels),
    )


def _last(stack: Stack, first: bool, batch: int) -> Last:
    """Weights and buffers of the last stack."""
    *_, taps, hidden = stack.weight.shape
    return Last(
        chain(stack.weight[:, :, -1], stack.out, batch),
        _folded_link(stack, first),
        halve_gates(stack.bias).unsqueeze(1),
        halve_gates(stack.weight[:, :, :-1].flatten(2)).transpose(1, 2).contiguous(),
        stack.weight.new_zeros(len(stack.weight), batch, taps - 1, hidden),
    )


def _folded_link(stack: Stack, first: bool) -> Tensor | None:
    """``(layers, 2 hidden, source)``; where the source is the stack before, its gates are halved already."""
    if stack.link is None:
        return None
    link = halve_gates(stack.link)
    if first:
        return link
    values, gates = link.chunk(2, 2)
    return torch.cat((values, 2 * gates), 2)


def _through(slabs: Slabs, x: Tensor) -> None:
    """A slab x ``(positions * batch, hidden)`` through all layers, added to the given y in ``slabs.sums``."""
    layers = zip(slabs.weight, slabs.whole, slabs.out, slabs.insides, slabs.seen, slabs.sums, strict=True)
    for weight, whole, out, inside, seen, y in layers:
        for tap in range(inside.shape[-2] - 1):
            inside.narrow(-2, tap, 1).copy_(inside.narrow(-2, tap + 1, 1))
        inside.narrow(-2, -1, 1).copy_(x.view(*inside.shape[:-2], 1, -1))
        if torch.compiler.is_compiling() and len(y) == 1:
            # Views would be copied one by one; what a row sees of all taps is small.
            y.baddbmm_(torch.cat(seen, 2), whole.unsqueeze(0))
        else:
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
    return linked.unflatten(1, context.shape[:-1])  # type: ignore[no-any-return]


def _index(grid: tuple[int, ...], axis: int, position: Tensor) -> Tensor:
    """The index of a position along an axis, ``(1,)``."""
    after = prod(grid[axis + 1 :])
    slab = position if after == 1 else position // after
    return slab if axis == 0 else slab % grid[axis]
