"""Networks that give each code's distribution from the codes before it: all at once, or code by code."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from math import pi, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.causal.code_network import CodeNetwork
from toolkit.causal.context import Context
from toolkit.causal.depths import Cache, DepthLayers, DepthTransformer
from toolkit.device import in_float32
from toolkit.nn.cross_entropy import cross_entropy

ROWS = 1 << 14
"""Positions, counted over all examples, that a prefix in one pass computes at once: enough to keep a device busy, and
few beside the states that are sampled from."""

CACHED = 512
"""The same for each thread of a CPU, where a layer's results then stay in its cache until the next one reads them."""

REACH = 0.2
"""Distance, on the scale from -1 to 1, over which initial embeddings of ordered levels are correlated."""


class Trunk(nn.Module, ABC):
    """Features of every position from the inputs at the positions before it, in raster order.

    ``forward`` computes all positions at once; ``init``, ``step`` and ``append`` go position by position, with the same
    weights and the same result. A state consists of tensors of fixed shapes in nested tuples, lists or dicts, changed
    in place, and nothing is read back from the device, so that a step can be compiled, or captured and replayed; to use
    it for other examples, its tensors are set to those of a new state. ``prefill`` enters what is known of the first
    positions.
    """

    channels: int
    """Input channels at every position."""

    features: int
    """Output channels at every position."""

    @abstractmethod
    def forward(self, embedded: Tensor, context: Context | None) -> Tensor:
        """``(batch, *grid, features)`` from ``(batch, channels, *grid)``.

        ``context`` is known at all positions: ``(batch, context, *grid)``, with length 1 along axes where it is
        constant; a trunk that attends to texts may be given a ``TextContext``.
        """

    def blocks_in_order(self) -> Sequence[nn.Module]:
        """Those that ``forward`` calls one after the other, see ``toolkit.Prior``."""
        return ()

    @abstractmethod
    def init(self, batch: int, grid: Sequence[int], context: Context | None) -> Any:
        """The state before the first position. Weights are read here only."""

    def graph_id(self, grid: Sequence[int], position: int, coarse: bool = False) -> int:
        """Identifies steps that do the same operations on tensors of the same shapes, and so can share a graph.
        ``coarse``: prefer few ids, even if steps then do needless work."""
        return 0

    def file_graph_id(self, grid: Sequence[int], position: int) -> int:
        """``graph_id`` of a step that is written to a file: there are to be as few as can be, whatever needless work
        they do."""
        return self.graph_id(grid, position, coarse=True)

    @abstractmethod
    def step(self, state: Any, graph_id: int, position: Tensor) -> Tensor:
        """The features ``(batch, features)`` of a position, ``(1,)`` on the device; once per position, in order."""

    @abstractmethod
    def append(self, state: Any, position: Tensor, embedded: Tensor) -> None:
        """Sets the input at the position: ``(batch, channels)``."""

    def together(self, grid: Sequence[int], graph_id: int) -> int:
        """How many positions from a step's on have features that no input among them changes, so that their codes are
        sampled at once, by ``step_part`` and ``append_part``; 1 where there are no such."""
        return 1

    def step_part(self, state: Any, graph_id: int, positions: Tensor) -> Tensor:
        """``step`` at as many positions as are ``together``: ``(batch, positions, features)``."""
        raise NotImplementedError(f"{type(self).__name__} steps position by position")

    def append_part(self, state: Any, positions: Tensor, embedded: Tensor) -> None:
        """``append`` at positions of such a step: ``(batch, positions, channels)``."""
        raise NotImplementedError(f"{type(self).__name__} steps position by position")

    def prefill(self, state: Any, grid: Sequence[int], embedded: Tensor) -> None:
        """Sets the inputs of the first positions, ``(batch, channels, positions)`` in raster order, of a new state.

        Later steps give the same as after a ``step`` and an ``append`` at every one of these positions, which is what
        happens here. A trunk that can compute them all at once does that instead; it works on as many examples at once
        as ``stretches`` says, as the first positions may be many.
        """
        for index, inputs in enumerate(embedded.unbind(2)):
            position = torch.tensor([index], device=embedded.device)
            self.step(state, self.graph_id(grid, index), position)
            self.append(state, position, inputs)

    if TYPE_CHECKING:
        __call__ = forward


class NetworkState(NamedTuple):
    """State of a network while codes are sampled."""

    trunk: Any
    last_input: Tensor
    """The sum of the embedded codes of the current position, ``(batch, channels)``."""
    tables: list[Tensor]
    """Weights of the network, to avoid attribute lookups at every code."""
    inner: list[Tensor]
    heads: list[tuple[Tensor, Tensor]]
    caches: Cache
    """Of the transformer over a position's codes; empty without one."""


@final
class CausalNetwork(CodeNetwork):
    """A distribution over codes ``(batch, depth, *grid)``, each code given all earlier ones.

    The order is raster over positions and, at each, from the first depth to the last. The trunk runs once per position,
    over the sum of the position's embedded codes; a small head makes the codes at a position depend on one another: it
    adds an embedding of every earlier depth's code to the trunk's feature. With ``depth_layers`` these sums go through
    a transformer over the depths.

    Args:
        head: channels before the output layer.
        ordered: whether codes are ordered levels; then embeddings of neighbors start similar.
    """

    def __init__(
        self,
        trunk: Trunk,
        codebook_sizes: tuple[int, ...],
        *,
        head: int = 256,
        ordered: bool = False,
        depth_layers: DepthLayers = 0,
    ) -> None:
        super().__init__()
        if not codebook_sizes:
            raise ValueError("a causal network needs codes, but the depth is 0: choose a quantizer with a codebook")
        self.codebook_sizes = codebook_sizes
        self.tables = nn.ModuleList(nn.Embedding(size, trunk.channels) for size in codebook_sizes)
        self.trunk = trunk
        self.proj = nn.Linear(trunk.features, head)
        self.inner = nn.ModuleList(nn.Embedding(size, head) for size in codebook_sizes[:-1])
        self.heads = nn.ModuleList(nn.Linear(head, size) for size in codebook_sizes)
        self.first: Tensor
        first = torch.tensor([sum(codebook_sizes[:depth]) for depth in range(len(codebook_sizes))])
        self.register_buffer("first", first, persistent=False)
        for table in (*self.tables, *self.inner):
            nn.init.normal_(table.weight, std=1 / sqrt(len(codebook_sizes)))
            if ordered:
                table.weight.data.copy_(smooth(*table.weight.shape) / sqrt(len(codebook_sizes)))
        self.depths = DepthTransformer(len(codebook_sizes), head, depth_layers) if depth_layers else None

    def forward(self, codes: Tensor, context: Context | None = None) -> tuple[Tensor, ...]:
        """Logits of codes ``(batch, depth, *grid)``: for each depth ``(batch, *grid, codebook_size)``."""
        features = self.trunk(self.embed(codes), context)
        return tuple(depth for some in self._logits(features, codes) for depth in some)

    if TYPE_CHECKING:
        __call__ = forward

    def log_prob(self, codes: Tensor, context: Context | None = None, seen: Tensor | None = None) -> Tensor:
        """Nats ``(batch,)``; at least float32. ``seen``: what the network is shown in place of the codes."""
        return -self.cross_entropy(codes, context, seen)

    def cross_entropy(self, codes: Tensor, context: Context | None = None, seen: Tensor | None = None) -> Tensor:
        """``-log_prob``."""
        shown = codes if seen is None else seen
        return self.cross_entropy_of(self.trunk(self.embed(shown), context), codes, shown)

    def cross_entropy_of(self, features: Tensor, codes: Tensor, shown: Tensor | None = None) -> Tensor:
        """``cross_entropy`` of codes ``(batch, depth, *grid)`` whose trunk's features are ``(batch, *grid, features)``.

        ``shown``: what the network is shown of the codes at a position in place of them.
        """
        logits = self._logits(features, codes if shown is None else shown)
        parts = codes.split([len(some) for some in logits], 1)
        nats = [_cross_entropy(some, part) for some, part in zip(logits, parts, strict=True)]
        return nats[0] if len(nats) == 1 else torch.stack(nats).sum(0)

    def by_position(self, codes: Tensor, context: Context | None = None, seen: Tensor | None = None) -> Tensor:
        """The nats of ``cross_entropy``, of each code: ``(batch, depth, *grid)``."""
        shown = codes if seen is None else seen
        logits = self._logits(self.trunk(self.embed(shown), context), shown)
        parts = codes.split([len(some) for some in logits], 1)
        nats = [_nats(some, part).view(part.transpose(0, 1).shape) for some, part in zip(logits, parts, strict=True)]
        return torch.cat(nats).transpose(0, 1)

    def embed(self, codes: Tensor) -> Tensor:
        """Codes ``(batch, depth, *grid)`` to the trunk's input ``(batch, channels, *grid)``."""
        embedded = self._embedded(codes, self.tables)
        whole: Tensor = embedded.squeeze(1) if len(self.tables) == 1 else embedded.sum(1)
        return whole.movedim(-1, 1)

    def _logits(self, features: Tensor, codes: Tensor) -> list[Tensor]:
        """``(depths, batch, *grid, codebook_size)`` of all depths where codebooks are equally large, else of each.

        And of each on a CPU, whose cache is too small for all, and to which an operation costs little.
        """
        feature: Tensor = self.proj(features.relu())
        if self.depths is not None:
            features = self.depths(self._inputs(feature, codes))
            return [head(part).unsqueeze(0) for head, part in zip(self.heads, features, strict=True)]
        if feature.device.type != "cpu" and len(set(self.codebook_sizes)) == 1:
            return [self._together(feature, codes)]
        logits = []
        for depth, head in enumerate(self.heads):
            logits.append(head(feature.relu()).unsqueeze(0))
            if depth < len(self.inner):
                feature = feature + self.inner[depth](codes[:, depth])
        return logits

    def _inputs(self, feature: Tensor, codes: Tensor) -> Tensor:
        """A position's feature and the embeddings of all codes before a depth: ``(depth, batch, *grid, head)``."""
        inputs = [feature]
        for depth, table in enumerate(self.inner):
            inputs.append(inputs[-1] + table(codes[:, depth]))
        return torch.stack(inputs)

    def _together(self, feature: Tensor, codes: Tensor) -> Tensor:
        """``(depth, batch, *grid, codebook_size)`` of all depths at once, in as many operations as of one."""
        features = feature.unsqueeze(0)
        if self.inner:
            with in_float32(feature.device):
                parts = torch.cat([features, self._embedded(codes[:, :-1], self.inner).movedim(1, 0)])
                # To each depth's feature the codes of all earlier ones are added: a cumulative sum, as a product.
                earlier = torch.ones(len(parts), len(parts), dtype=parts.dtype, device=parts.device).tril_()
                features = (earlier @ parts.flatten(1)).view_as(parts)
        # Not stacked: through cat and unflatten their gradients come back contiguous at once, else copied one by one.
        each = [head.weight for head in self.heads], [head.bias for head in self.heads]
        weight, bias = (torch.cat(of_all).unflatten(0, (len(of_all), -1)) for of_all in each)  # type: ignore[arg-type]
        logits = torch.baddbmm(bias.unsqueeze(1), features.relu().flatten(1, -2), weight.mT)
        return logits.view(*features.shape[:-1], -1)

    def _embedded(self, codes: Tensor, tables: nn.ModuleList) -> Tensor:
        """Codes ``(batch, depth, *grid)``, each by its depth's table: ``(batch, depth, *grid, channels)``."""
        weights = [table.weight for table in tables]
        if len(weights) == 1:
            return F.embedding(codes, weights[0])  # type: ignore[arg-type]
        first = self.first[: len(weights)].view(-1, *[1] * (codes.dim() - 2))
        return F.embedding(codes + first, torch.cat(weights))  # type: ignore[arg-type]

    def init(self, batch: int, grid: Sequence[int], context: Context | None = None) -> NetworkState:
        """The state before the first position."""
        return NetworkState(
            self.trunk.init(batch, grid, context),
            self.proj.weight.new_zeros(batch, self.trunk.channels),
            [table.weight for table in self.tables],  # type: ignore[misc]
            [table.weight for table in self.inner],  # type: ignore[misc]
            [(head.weight, head.bias) for head in self.heads],  # type: ignore[misc]
            [] if self.depths is None else self.depths.init(batch),
        )

    def prefill(self, state: NetworkState, grid: Sequence[int], codes: Tensor) -> None:
        """Appends the codes ``(batch, depth, positions)`` of the first positions, in raster order, to a new state."""
        self.trunk.prefill(state.trunk, grid, self.embed(codes))

    def step(self, state: NetworkState, graph_id: int, position: Tensor) -> Tensor:
        """The feature ``(batch, head)`` of a position ``(1,)``, after all codes before it are appended."""
        return F.linear(self.trunk.step(state.trunk, graph_id, position).relu(), self.proj.weight, self.proj.bias)

    def step_part(self, state: NetworkState, graph_id: int, positions: Tensor) -> Tensor:
        """``step`` at positions that are together: ``(batch, positions, head)``."""
        features = self.trunk.step_part(state.trunk, graph_id, positions)
        return F.linear(features.relu(), self.proj.weight, self.proj.bias)

    def logits(self, state: NetworkState, feature: Tensor, depth: int) -> Tensor:
        """``(batch, codebook_sizes[depth])``, after the codes of all earlier depths are appended."""
        if self.depths is not None:
            return F.linear(self.depths.step(state.caches, feature, depth), *state.heads[depth])
        return F.linear(feature.relu(), *state.heads[depth])

    def append(self, state: NetworkState, feature: Tensor, position: Tensor, depth: int, codes: Tensor) -> Tensor:
        """Appends the codes ``(batch,)`` of a position and depth; returns the feature for the next depth."""
        rows = state.tables[depth].index_select(0, codes)
        embedded = state.last_input.copy_(rows) if depth == 0 else state.last_input.add_(rows)
        if depth < len(state.inner):
            return feature + state.inner[depth].index_select(0, codes)
        self.trunk.append(state.trunk, position, embedded)
        return feature


def stretches(batch: int, positions: int, device: torch.device | None = None) -> Iterator[slice]:
    """All examples, as many at a time as have ``ROWS`` positions together, but at least one.

    ``device``: where the layers run, if their results are large beside what they read; on a CPU it is ``CACHED`` then.
    """
    size = max(1, _rows(device) // max(1, positions))
    return (slice(start, min(start + size, batch)) for start in range(0, batch, size))


def _rows(device: torch.device | None) -> int:
    # What is compiled has its operations once for each stretch.
    if device is None or device.type != "cpu" or torch.compiler.is_compiling():
        return ROWS
    return CACHED * torch.get_num_threads()


def shift(x: Tensor, axis: int) -> Tensor:
    """x ``(batch, channels, *grid)`` shifted by one position along an axis of the grid; zeros enter."""
    after = x.ndim - 3 - axis
    return F.pad(x, [0, 0] * after + [1, -1])


def smooth(levels: int, channels: int) -> Tensor:
    """Random rows ``(levels, channels)`` of unit variance, smooth over the levels in each channel.

    The correlation of levels s and s', from -1 to 1, is ``exp(-(s - s')^2 / (2 REACH^2))``: random Fourier features of
    the level (Rahimi and Recht 2007).
    """
    waves = torch.linspace(-1, 1, levels).unsqueeze(1) * torch.randn(channels) / REACH
    return sqrt(2) * torch.cos(waves + 2 * pi * torch.rand(channels))


def _cross_entropy(logits: Tensor, codes: Tensor) -> Tensor:
    """``(batch,)`` from logits ``(depths, batch, *grid, size)``, of codes ``(batch, depths, *grid)``."""
    return _nats(logits, codes).view(len(logits), len(codes), -1).sum((0, 2))


def _nats(logits: Tensor, codes: Tensor) -> Tensor:
    """Of each code, flat, depth by depth."""
    return cross_entropy(logits.flatten(0, -2), codes.transpose(0, 1).flatten())
