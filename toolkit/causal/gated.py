"""A chain of gated layers at one position, given all positions before it.

Layer: ``y = past + W x``, ``z = tanh(y_1) sigmoid(y_2)``, ``x += V z``. What the past adds to all layers is computed in
one product before the chain; only the products with W and V are done layer by layer. Since
``sigmoid(b) = (tanh(b / 2) + 1) / 2``, halving the weights of ``y_2``, and V, leaves a single tanh over both.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Chain(NamedTuple):
    """Folded weights, and buffers with views created once: a layer is four calls and no allocation."""

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
    """Per layer: W, V, x, y, the halves of y, z, and the next x."""
    transposed: tuple[Tensor, Tensor]
    """W and V as ``(layers, outputs, inputs)``, which compiled code reads in order."""


def chain(current: Tensor, out: Tensor, batch: int) -> Chain:
    """A chain from weights W ``(layers, 2 hidden, hidden)`` and V ``(layers, hidden, hidden)``."""
    layers, hidden = out.shape[:2]
    sums = out.new_zeros(layers, batch, 2 * hidden)
    inputs = out.new_zeros(layers + 1, batch, hidden)
    gated = out.new_zeros(batch, layers, hidden)
    transposed = halve_gates(current), out / 2
    current, out = (weight.transpose(1, 2).contiguous() for weight in transposed)
    halves = sums.chunk(2, 2)
    rows = list(zip(current, out, inputs, sums, *halves, gated.unbind(1), inputs[1:], strict=False))
    return Chain(current, out, sums, inputs, gated, rows, transposed)


def halve_gates(weight: Tensor) -> Tensor:
    """The weights of y ``(layers, 2 hidden, …)``, those of the gates halved."""
    values, gates = weight.chunk(2, 1)
    return torch.cat((values, gates / 2), 1)


def run(chain: Chain, given: Tensor, past: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """One position through all layers, from ``chain.inputs[0]``.

    ``given`` ``(layers, batch or 1, 2 hidden)`` and the past's product ``past @ weight``, ``(layers, batch, n)`` by
    ``(layers, n, 2 hidden)``, are what the past adds. Returns x before each layer and after the last, and twice each
    layer's z.
    """
    if torch.compiler.is_compiling():
        return _functional(chain, torch.baddbmm(given, past, weight))
    torch.baddbmm(given, past, weight, out=chain.sums)
    for current, out, x, y, values, gates, z, after in chain.rows:
        torch.addmm(y, x, current, out=y).tanh_()
        torch.addcmul(values, values, gates, out=z)
        torch.addmm(x, z, out, out=after)
    return chain.inputs, chain.gated


def _functional(chain: Chain, sums: Tensor) -> tuple[Tensor, Tensor]:
    """The same without buffers: a compiler allocates better, and would copy a whole buffer at every write."""
    inputs, gated = [chain.inputs[0]], []
    weights = (weight.unbind() for weight in chain.transposed)
    for y, current, out in zip(sums.unbind(), *weights, strict=True):
        values, gates = (y + _product(inputs[-1], current)).tanh().chunk(2, 1)
        gated.append(values + values * gates)
        inputs.append(inputs[-1] + _product(gated[-1], out))
    return torch.stack(inputs), torch.stack(gated, 1)


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """``(rows, outputs)`` from ``(rows, inputs)`` and ``(outputs, inputs)``.

    A single row is multiplied and summed elementwise: a call to a matrix product would cost more than the arithmetic of
    a layer, and could not be fused with its neighbors.
    """
    if len(x) == 1:
        return (x.unsqueeze(1) * weight).sum(2)
    return x @ weight.t()
