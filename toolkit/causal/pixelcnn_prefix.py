"""A PixelCNN's state after the first positions, by convolutions over all of them.

What a stack keeps is of one slab of the axes before its own: the one that the last known position is in. So the first
stack computes everything known, the second one plane or row of it, and so on. They go layer by layer, as a layer of a
stack reads the same layer of the stack before.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from toolkit.causal.gated import halve_gates
from toolkit.causal.network import shift, stretches
from toolkit.causal.pixelcnn_steps import PixelCNNState
from toolkit.device import exact


class Stack(Protocol):
    """The layers of one axis, as the network computes them; all tensors are ``(batch, channels, *grid)``."""

    def past(self, layer: int, x: Tensor) -> Tensor:
        """What the inputs x of a layer add to its y."""

    def given(self, layer: int, source: Tensor | None, rank: int) -> Tensor:
        """What its bias and the source add."""

    def residual(self, layer: int, y: Tensor) -> Tensor:
        """What a layer adds to x."""


def prefill(stacks: Sequence[Stack], state: PixelCNNState, embedded: Tensor) -> None:
    """Sets the inputs of the first positions, ``(batch, hidden, positions)``, of a new state."""
    batch, _, positions = embedded.shape
    if not positions:
        return
    for filled in state.filled:
        slots = torch.arange(positions, device=embedded.device)[-len(filled) :] % len(filled)
        filled.index_copy_(0, slots, embedded[:, :, -len(filled) :].permute(2, 0, 1))
    index = _unravel(positions - 1, state.grid)
    per_slab = prod(state.grid[1:])
    # What is not known yet is not seen by what is kept.
    known = F.pad(embedded, (0, (index[0] + 1) * per_slab - positions)).unflatten(2, (-1, *state.grid[1:]))
    with exact(embedded.device):  # as the steps are
        for examples in stretches(batch, known[0, 0].numel()):
            _fill(stacks, state, known[examples], index, examples)


def _fill(
    stacks: Sequence[Stack], state: PixelCNNState, known: Tensor, index: tuple[int, ...], examples: slice
) -> None:
    """What is kept of some examples' layers, after the position of an index."""
    rank = len(index)
    xs = [_until(shift(_at(known, index[:axis]), axis), axis, index[axis]) for axis in range(rank)]
    context = _context(state.context, index[0], examples)
    for layer, window in enumerate(state.last.window):
        source = context
        for axis, stack in enumerate(stacks):
            given = stack.given(layer, source, rank)
            if axis:
                _keep_given(state.given[axis][layer], given, examples)
                given = _until(given, axis, index[axis])
            if axis < rank - 1:
                _keep_slabs(state.outer[axis].insides[layer][:, :, examples], xs[axis], axis)
            else:
                _keep_window(window[examples], xs[axis])
            y = stack.past(layer, xs[axis]) + given
            xs[axis] = xs[axis] + stack.residual(layer, y)
            source = y.narrow(2 + axis, index[axis], 1)


def _keep_given(whole: Tensor, given: Tensor, examples: slice) -> None:
    """What the stack before adds to the slab: whole ``(size, later positions * batch, 2 hidden)``."""
    rows = halve_gates(given).flatten(2).permute(2, 0, 1)
    whole.view(len(rows), -1, rows.shape[2])[:, examples].copy_(rows)


def _keep_slabs(inside: Tensor, x: Tensor, axis: int) -> None:
    """The last slabs of x ``(examples, hidden, 1, …, slabs, *later)`` in a layer's ``insides``."""
    slabs = x.flatten(2, 2 + axis)[:, :, -inside.shape[3] :]
    inside[..., -slabs.shape[2] :, :].copy_(slabs.movedim((0, 2, 1), (-3, -2, -1)))


def _keep_window(window: Tensor, x: Tensor) -> None:
    """The last positions of x ``(examples, hidden, 1, …, positions)`` in ``(examples, taps - 1, hidden)``."""
    last = x.flatten(2)[:, :, -window.shape[1] :]
    window[:, -last.shape[2] :].copy_(last.transpose(1, 2))


def _context(context: Tensor | None, index: int, examples: slice) -> Tensor | None:
    """``(examples, channels, *axes)`` up to the slab of an index, of a state's ``(*axes, batch, channels)``."""
    if context is None:
        return None
    return context[: index + 1, ..., examples, :].movedim((-2, -1), (0, 1))


def _at(x: Tensor, index: tuple[int, ...]) -> Tensor:
    """x ``(batch, channels, *grid)`` at an index along the first axes, which are left with a length of 1."""
    for axis, number in enumerate(index):
        x = x.narrow(2 + axis, number, 1)
    return x


def _until(x: Tensor, axis: int, index: int) -> Tensor:
    """x up to an index along an axis."""
    return x.narrow(2 + axis, 0, index + 1)


def _unravel(position: int, grid: tuple[int, ...]) -> tuple[int, ...]:
    """The index of a position along every axis."""
    index: list[int] = []
    for size in reversed(grid):
        index.insert(0, position % size)
        position //= size
    return tuple(index)
