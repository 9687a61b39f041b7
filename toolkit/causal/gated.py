"""A chain of gated layers at one position, when all that lies before it is known.

Layer: ``y = past + W x``, ``z = tanh(y_1) sigmoid(y_2)``, ``x += V z``. What the past adds to every layer can be had in
one product before the chain begins; only W and V are left to be done one after the other. Since
``sigmoid(b) = (tanh(b / 2) + 1) / 2``, halving what makes ``y_2``, and V, leaves a single tanh over both.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Chain(NamedTuple):
    """Folded weights, and buffers whose views are made once: a layer is four calls and no allocation."""

    current: Tensor
    """W of each layer: ``(layers, hidden, 2 hidden)``."""
    out: Tensor
    """V of each layer: ``(layers, hidden, hidden)``."""
    sums: Tensor
    """What the past adds, and then y: ``(layers, batch, 2 hidden)``."""
    inputs: Tensor
    """x before each layer, and after the last: ``(layers + 1, batch, hidden)``."""
    gated: Tensor
    """Twice the z of each layer: ``(batch, layers, hidden)``."""
    rows: list[tuple[Tensor, ...]]
    """Of each layer: W, V, x, y, its halves, z, and the next x."""


def chain(current: Tensor, out: Tensor, batch: int) -> Chain:
    """From the weights ``(layers, 2 hidden, hidden)`` and ``(layers, hidden, hidden)``."""
    layers, hidden = out.shape[:2]
    sums = out.new_zeros(layers, batch, 2 * hidden)
    inputs = out.new_zeros(layers + 1, batch, hidden)
    gated = out.new_zeros(batch, layers, hidden)
    current = halve_gates(current).transpose(1, 2).contiguous()
    out = out.transpose(1, 2).contiguous() / 2
    halves = sums.chunk(2, 2)
    rows = list(zip(current, out, inputs, sums, *halves, gated.unbind(1), inputs[1:], strict=False))
    return Chain(current, out, sums, inputs, gated, rows)


def halve_gates(weight: Tensor) -> Tensor:
    """What makes y ``(layers, 2 hidden, …)``, so that it makes the gates' half of them."""
    values, gates = weight.chunk(2, 1)
    return torch.cat((values, gates / 2), 1)


def run(chain: Chain, given: Tensor, past: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """One position through all layers, from ``chain.inputs[0]``.

    ``given`` ``(layers, batch or 1, 2 hidden)`` and the past's product ``past @ weight``, ``(layers, batch, n)`` by
    ``(layers, n, 2 hidden)``, are what the past adds. Returns x before each layer and after the last, and twice each
    layer's z.
    """
    if torch.compiler.is_compiling():
        return _functional(chain, given + product(past, weight))
    torch.baddbmm(given, past, weight, out=chain.sums)
    for current, out, x, y, values, gates, z, after in chain.rows:
        torch.addmm(y, x, current, out=y).tanh_()
        torch.addcmul(values, values, gates, out=z)
        torch.addmm(x, z, out, out=after)
    return chain.inputs, chain.gated


def _functional(chain: Chain, sums: Tensor) -> tuple[Tensor, Tensor]:
    """The same without buffers: a compiler places them better, and would copy a whole one at every write."""
    inputs, gated = [chain.inputs[0]], []
    for y, current, out in zip(sums.unbind(), chain.current, chain.out, strict=True):
        values, gates = (y + product(inputs[-1], current)).tanh().chunk(2, 1)
        gated.append(values + values * gates)
        inputs.append(inputs[-1] + product(gated[-1], out))
    return torch.stack(inputs), torch.stack(gated, 1)


def product(x: Tensor, weight: Tensor) -> Tensor:
    """``x @ weight``, ``(…, rows, n)`` by ``(…, n, m)``.

    To a compiler a single row is multiplied and summed in the open: a call to a matrix product would cost more than its
    numbers, and could not be joined with what stands around it.
    """
    if x.shape[-2] == 1 and torch.compiler.is_compiling():
        return (x.unsqueeze(-1) * weight.unsqueeze(-3)).sum(-2)
    return x @ weight
