"""WaveNet (van den Oord et al. 2016, arXiv:1609.03499): dilated causal convolutions along one axis.

Position by position, every layer keeps its last ``dilation`` inputs in a ring buffer, so that the cost of a step does
not depend on the position or the receptive field (Le Paine et al. 2016, arXiv:1611.09482).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.causal.gated import Chain, chain, halve_gates, run
from toolkit.causal.network import Trunk, shift, stretches
from toolkit.errors import ToolkitError


class WaveNetState(NamedTuple):
    """State of the layers; each has its own segment of the ring buffer, as long as its dilation."""

    chain: Chain
    past: Tensor
    """Weights of the past tap: ``(layers, hidden, 2 hidden)``."""
    ring: Tensor
    """``(sum of dilations, batch, hidden)``."""
    starts: Tensor
    dilations: Tensor
    given: Tensor
    """``b + link(context)``: ``(steps, layers, batch or 1, 2 hidden)``."""
    stride: int
    """Positions that share a step of the context."""
    skip: Tensor
    """``(layers * hidden, skip)``."""


@final
class WaveNet(Trunk):
    """Gated residual layers of kernel size 2, whose dilation doubles with each layer and restarts in every block.

    Layer: ``y = W x_t + W' x_{t-d} + b + link(context)``, ``z = tanh(y_1) sigmoid(y_2)``, ``x += V z`` (equations 2
    and 5); the features are a linear map of all layers' z, the skip connections. A context may be coarser than the
    grid: it is repeated, but computed at its own rate.

    Args:
        context: channels of the context (0: none).
        layers: layers per block; the last dilation is ``2 ** (layers - 1)``.
        skip: channels of the features.
    """

    def __init__(
        self,
        *,
        context: int = 0,
        hidden: int = 64,
        blocks: int = 2,
        layers: int = 10,
        skip: int = 256,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if blocks < 1 or layers < 1:
            raise ValueError(f"blocks={blocks} layers={layers}: at least 1 of each")
        self.channels, self.features = hidden, skip
        self.dilations = [1 << layer for layer in range(layers)] * blocks
        count = len(self.dilations)
        self.weight = _parameter(count, 2 * hidden, hidden, 2, inputs=2 * hidden)
        self.bias = nn.Parameter(torch.zeros(count, 2 * hidden))
        self.link = _parameter(count, 2 * hidden, context, inputs=context) if context else None
        self.out = _parameter(count, hidden, hidden, inputs=hidden)
        self.skip = _parameter(count, skip, hidden, inputs=hidden * count)
        self.dropout = nn.Dropout(dropout)

    @property
    def receptive_field(self) -> int:
        """Positions that a feature depends on."""
        return sum(self.dilations) + 1

    def forward(self, embedded: Tensor, context: Tensor | None = None) -> Tensor:
        x = shift(embedded, 0)
        features = embedded.new_zeros(())
        for layer, dilation in enumerate(self.dilations):
            y = F.conv1d(F.pad(x, (dilation, 0)), self.weight[layer], self.bias[layer], dilation=dilation)
            if self.link is not None and context is not None:
                y = y + _repeated(F.conv1d(context, self.link[layer].unsqueeze(2)), x.shape[2])
            values, gates = y.chunk(2, 1)
            z = self.dropout(values.tanh() * gates.sigmoid())
            features = features + F.conv1d(z, self.skip[layer].unsqueeze(2))
            x = x + F.conv1d(z, self.out[layer].unsqueeze(2))
        return features.movedim(1, -1)

    def init(self, batch: int, grid: Sequence[int], context: Tensor | None = None) -> WaveNetState:
        (length,) = grid
        ends = torch.tensor(self.dilations, device=self.weight.device).cumsum(0)
        dilations = torch.tensor(self.dilations, device=self.weight.device)
        given = self._given(context)
        return WaveNetState(
            chain(self.weight[..., 1], self.out, batch),
            halve_gates(self.weight[..., 0]).transpose(1, 2).contiguous(),
            self.weight.new_zeros(sum(self.dilations), batch, self.channels),
            ends - dilations,
            dilations,
            given,
            _stride(length, len(given)),
            self.skip.transpose(1, 2).flatten(0, 1) / 2,
        )

    def continued(
        self, state: WaveNetState, positions: int, grid: Sequence[int], context: Tensor | None
    ) -> WaveNetState:
        """The state after the first ``positions``, all of a grid, as that before the first of the grid that follows."""
        (length,) = grid
        given, slots = self._given(context), list[Tensor]()
        for start, dilation in zip(state.starts.tolist(), self.dilations, strict=True):
            slots.append(start + (torch.arange(dilation, device=state.ring.device) + positions) % dilation)
        ring = state.ring.index_select(0, torch.cat(slots))
        return state._replace(ring=ring, given=given, stride=_stride(length, len(given)))

    def _given(self, context: Tensor | None) -> Tensor:
        """As ``WaveNetState`` has it."""
        given = halve_gates(self.bias).unsqueeze(1).unsqueeze(0)
        if self.link is not None and context is not None:
            given = torch.einsum("los,bst->tlbo", halve_gates(self.link), context) + given
        return given.contiguous()

    def step(self, state: WaveNetState, graph_id: int, position: Tensor) -> Tensor:
        slots = state.starts + position % state.dilations
        past = state.ring.index_select(0, slots)
        given = state.given
        step = given[0] if len(given) == 1 else given.index_select(0, position // state.stride)[0]
        inputs, gated = run(state.chain, step, past, state.past)
        state.ring.index_copy_(0, slots, inputs[:-1])
        return gated.flatten(1) @ state.skip

    def append(self, state: WaveNetState, position: Tensor, embedded: Tensor) -> None:
        state.chain.inputs[0].copy_(embedded)

    def prefill(self, state: WaveNetState, grid: Sequence[int], embedded: Tensor) -> None:
        batch, _, positions = embedded.shape
        if not positions:
            return
        first = max(0, positions - sum(self.dilations))  # what is before is not seen by what is kept
        x = shift(embedded, 0)[:, :, first:].permute(2, 0, 1)
        for examples in stretches(batch, len(x), x.device):
            self._fill(state, x[:, examples], first, examples)
        state.chain.inputs[0].copy_(embedded[:, :, -1])

    def _fill(self, state: WaveNetState, x: Tensor, first: int, examples: slice) -> None:
        """The ring of some examples, from the first layer's inputs ``(positions, examples, hidden)`` from ``first`` on.

        A layer's inputs are wrong where they depend on what is before ``first``, but no later layer's ring does.
        """
        order = torch.arange(first, first + len(x), device=x.device)
        given = state.given if state.given.shape[2] == 1 else state.given[:, :, examples]
        for layer, dilation in enumerate(self.dilations):
            kept = order[-dilation:]
            state.ring[:, examples].index_copy_(0, state.starts[layer] + kept % dilation, x[-dilation:])
            y = x @ state.chain.current[layer] + F.pad(x, (0, 0, 0, 0, dilation, 0))[: len(x)] @ state.past[layer]
            y = y + (given[0, layer] if len(given) == 1 else given[order // state.stride, layer])
            values, gates = y.tanh().chunk(2, 2)
            x = x + (values + values * gates) @ state.chain.out[layer]


def _repeated(y: Tensor, length: int) -> Tensor:
    """``(batch, channels, steps)`` repeated to the grid's length; a single step is left to broadcasting."""
    steps = y.shape[2]
    return y if steps in (1, length) else y.repeat_interleave(_stride(length, steps), 2)


def _stride(length: int, steps: int) -> int:
    if length % steps:
        raise ToolkitError(f"{length} positions are not a multiple of {steps} steps of context")
    return length // steps


def _parameter(*shape: int, inputs: int) -> nn.Parameter:
    """Uniform as in torch's own layers: within 1/sqrt(fan-in)."""
    return nn.Parameter(torch.empty(shape).uniform_(-1 / sqrt(inputs), 1 / sqrt(inputs)))
