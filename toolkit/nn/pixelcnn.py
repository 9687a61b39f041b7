"""The gated PixelCNN (van den Oord et al. 2016, arXiv:1606.05328), for grids of one to three axes.

The paper's vertical and horizontal stack, carried on to any rank: there is one stack per axis, and stack
``a`` sees what lies before a position along axis ``a``, with the same index on all earlier axes and any on
the later ones. Each stack reads the one before it, so that together they see exactly the past of the raster
order. No kernel is masked: shifting a stack's input by one along its axis, and padding on the left, keeps it
causal.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.errors import ToolkitError


class State(NamedTuple):
    """What the network remembers while sampling; stack ``a`` works on slabs of ``grid[a+1:]``."""

    grid: tuple[int, ...]
    embedded: Tensor
    """The codes so far: ``(batch, hidden, *grid)``."""
    windows: list[Tensor]
    """The last inputs of each layer: ``(layers, batch, taps - 1, hidden, *grid[a+1:])``."""
    given: list[Tensor]
    """What the stack before, or the context, adds: ``(layers, batch, 2 hidden, *grid[a:])``."""


class PixelCNN(nn.Module):
    """A distribution over codes ``(batch, depth, *grid)``, each code given all earlier ones.

    The order is raster over positions and, inside a position, from the first depth to the last. The stacks
    run once per position; a small head makes the codes inside it depend on one another. ``forward`` does all
    positions at once; ``init``, ``advance``, ``logits`` and ``absorb`` go code by code, with the same weights
    and the same result. The network is not bound to a grid, only to its rank.

    ``context``: channels of the context that is given at every position (0: there is none).
    """

    stacks: list[_Stack]

    def __init__(
        self,
        rank: int,
        codebook_sizes: tuple[int, ...],
        *,
        context: int = 0,
        hidden: int = 128,
        layers: int = 10,
        kernel_size: int = 5,
        head: int = 256,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check(rank, codebook_sizes, kernel_size, layers)
        self.codebook_sizes = codebook_sizes
        sources = [context] + [2 * hidden] * (rank - 1)
        self.tables = nn.ModuleList(nn.Embedding(size, hidden) for size in codebook_sizes)
        self.stacks = nn.ModuleList(  # type: ignore[assignment]
            _Stack(rank - 1 - axis, source, hidden, layers, kernel_size, dropout) for axis, source in enumerate(sources)
        )
        self.widen = nn.Linear(hidden, head)
        self.inner = nn.ModuleList(nn.Embedding(size, head) for size in codebook_sizes[:-1])
        self.heads = nn.ModuleList(nn.Linear(head, size) for size in codebook_sizes)
        for table in (*self.tables, *self.inner):
            nn.init.normal_(table.weight, std=1 / sqrt(len(codebook_sizes)))

    def forward(self, codes: Tensor, context: Tensor | None = None) -> tuple[Tensor, ...]:
        """Logits of codes ``(batch, depth, *grid)``: for each depth ``(batch, *grid, codebook_size)``.

        ``context`` ``(batch, context, *grid)``, or with axes of length 1 along which it does not change.
        """
        feature = self.trunk(self.embed(codes), context)
        logits = []
        for depth in range(len(self.codebook_sizes)):
            logits.append(self.logits(feature, depth))
            feature = self._enter(feature, depth, codes[:, depth])
        return tuple(logits)

    if TYPE_CHECKING:
        __call__ = forward

    def embed(self, codes: Tensor) -> Tensor:
        """Codes ``(batch, depth, *grid)`` to the stacks' input ``(batch, hidden, *grid)``."""
        parts = [table(codes[:, depth]) for depth, table in enumerate(self.tables)]
        return torch.stack(parts).sum(0).movedim(-1, 1)

    def trunk(self, embedded: Tensor, context: Tensor | None = None) -> Tensor:
        """Features ``(batch, *grid, head)`` of every position, each from the positions before it."""
        sources: Sequence[Tensor | None] = [context] * len(self.stacks[0].weight)
        for axis, stack in enumerate(self.stacks):
            x, sources = stack(_shift(embedded, axis), sources)
        return self._feature(x.movedim(1, -1))

    def init(self, batch: int, grid: Sequence[int], context: Tensor | None = None) -> State:
        """The state before the first position."""
        grid = tuple(grid)
        first: Tensor = self.widen.weight
        embedded = first.new_zeros(batch, self.widen.in_features, *grid)
        windows = [stack.window(batch, grid[axis + 1 :]) for axis, stack in enumerate(self.stacks)]
        layers, channels = self.stacks[0].bias.shape
        given = [first.new_zeros(layers, batch, channels, *grid[axis:]) for axis in range(1, len(grid))]
        start = self.stacks[0].given_all([context] * layers, len(grid))
        return State(grid, embedded, windows, [start.expand(layers, batch, channels, *grid), *given])

    def advance(self, state: State, position: int) -> Tensor:
        """The feature ``(batch, head)`` of a position, once all codes before it are absorbed.

        Positions come one after the other, in raster order. A stack moves on only where its own axis does.
        """
        index = _unravel(position, state.grid)
        for axis in range(_moved(index), len(index)):
            stack = self.stacks[axis]
            x, ys = stack.step(
                _before(state.embedded, index[: axis + 1]),
                state.windows[axis],
                state.given[axis].select(3, index[axis]),
            )
            if axis + 1 < len(index):
                state.given[axis + 1].copy_(self.stacks[axis + 1].given_all(ys, x.ndim - 2))
                state.windows[axis + 1].zero_()
        return self._feature(x)

    def logits(self, feature: Tensor, depth: int) -> Tensor:
        """``(batch, codebook_sizes[depth])``, once the codes of all earlier depths are absorbed."""
        logits: Tensor = self.heads[depth](feature.relu())
        return logits

    def absorb(self, state: State, feature: Tensor, position: int, depth: int, codes: Tensor) -> Tensor:
        """Takes in the codes ``(batch,)`` of a position and depth; the feature for the next depth."""
        state.embedded.flatten(2)[:, :, position] += self.tables[depth](codes)
        return self._enter(feature, depth, codes)

    def _feature(self, x: Tensor) -> Tensor:
        feature: Tensor = self.widen(x.relu())
        return feature

    def _enter(self, feature: Tensor, depth: int, codes: Tensor) -> Tensor:
        """The last depth has no next one to tell."""
        return feature + self.inner[depth](codes) if depth < len(self.inner) else feature


class _Stack(nn.Module):
    """The gated residual layers of one axis: causal along it, centred along the ``later`` axes after it.

    Layer: ``y = W * x + b + link(source)``, ``x += out(tanh(y_1) sigmoid(y_2))`` (equation 2). The source is
    the ``y`` of the stack before, in the same layer, or for the first stack the context (equation 4), which
    so reaches the gates of every layer and stack.
    """

    def __init__(self, later: int, source: int, hidden: int, layers: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
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

    def step(self, x: Tensor, window: Tensor, given: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The same for one slab ``(batch, channels, *grid[axis+1:])``; moves the window on."""
        ys = []
        weights = self.weight.flatten(2, 3)
        for weight, out, inputs, other in zip(weights, self.out, window, given, strict=True):
            taps = torch.cat((inputs, x[:, None]), 1)
            y = _convolve(taps.flatten(1, 2), weight, [size // 2 for size in weight.shape[2:]]) + other
            inputs.copy_(taps[:, 1:])
            x = x + _pointwise(_gate(y), out)
            ys.append(y)
        return x, ys

    def window(self, batch: int, rest: Sequence[int]) -> Tensor:
        """The inputs before the first slab: zeros, as padding is."""
        layers, _, taps, hidden = self.weight.shape[:4]
        return self.weight.new_zeros(layers, batch, taps - 1, hidden, *rest)

    def given_all(self, sources: Sequence[Tensor | None], rank: int) -> Tensor:
        """``b + link(source)`` of every layer, ``(layers, batch or 1, channels, *axes)``."""
        return torch.stack([self._given(layer, source, rank) for layer, source in enumerate(sources)])

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


def _check(rank: int, codebook_sizes: tuple[int, ...], kernel_size: int, layers: int) -> None:
    if not 1 <= rank <= 3:
        raise ToolkitError(f"a PixelCNN works on grids of 1 to 3 axes, this one has {rank}: take another network")
    if not codebook_sizes:
        raise ToolkitError("a PixelCNN needs codes, and the depth is 0: take a quantizer with a codebook")
    if kernel_size < 3 or kernel_size % 2 == 0:
        raise ToolkitError(f"kernel_size={kernel_size}: a PixelCNN needs an odd number of at least 3")
    if layers < 1:
        raise ToolkitError(f"layers={layers}: a PixelCNN needs at least 1")


def _parameter(layers: int, channels: int, *inputs: int) -> nn.Parameter:
    """Weights of all layers, uniform as in torch's own layers: within 1/sqrt of the inputs' number."""
    bound = 1 / sqrt(prod(inputs))
    return nn.Parameter(torch.empty(layers, channels, *inputs).uniform_(-bound, bound))


def _convolve(x: Tensor, weight: Tensor, padding: list[int]) -> Tensor:
    """A convolution along all axes of x ``(batch, channels, *axes)``, of which there may be none."""
    match x.ndim - 2:
        case 0:
            return F.linear(x, weight)
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


def _shift(x: Tensor, axis: int) -> Tensor:
    """x ``(batch, channels, *grid)`` moved one position on along an axis of the grid; a zero comes in."""
    after = x.ndim - 3 - axis
    return F.pad(x, [0, 0] * after + [1, -1])


def _before(embedded: Tensor, index: tuple[int, ...]) -> Tensor:
    """The slab one before ``index`` along the last of its axes; zeros before the first."""
    slab = embedded
    for place in index[:-1]:
        slab = slab[:, :, place]
    return slab[:, :, index[-1] - 1] if index[-1] else torch.zeros_like(slab[:, :, 0])


def _unravel(position: int, grid: tuple[int, ...]) -> tuple[int, ...]:
    index = []
    for size in reversed(grid):
        position, remainder = divmod(position, size)
        index.append(remainder)
    return tuple(reversed(index))


def _moved(index: tuple[int, ...]) -> int:
    """The first axis along which this position differs from the one before it."""
    axis = len(index) - 1
    while axis and index[axis] == 0:
        axis -= 1
    return axis
