"""Steps of sampling that are recorded once and run again: CUDA graphs on a GPU, compiled code on a CPU.

A recorded step reads and writes the tensors that it was recorded with: a batch's, and the network's weights. Batches
are kept with their steps, by network, so that the next slice of the examples, the next call and the next pictures of a
training record nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import chain
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import nn

from toolkit.causal.batch import Batch, opaque
from toolkit.causal.code_network import CodeNetwork
from toolkit.causal.compiling import Compiled, Step, compiled_step

KEPT = 1 << 30
"""Most bytes of the batches that are kept for a network after a call."""


class Recorder(Protocol):
    """How steps are recorded."""

    def __call__(self, network: CodeNetwork, batch: Batch, graph_id: int) -> Callable[[], object] | None:
        """Runs a step; returns what runs it again, or None: not yet."""


class Captured:
    """Steps as CUDA graphs, so that a step is a single launch.

    The first step of a graph id runs eagerly, which warms up its operations; the second is captured, which runs
    nothing, and replayed.
    """

    def __init__(self, step: Step, pool: Any) -> None:
        self.step, self.pool = step, pool
        self.warm = set[int]()

    def __call__(self, network: CodeNetwork, batch: Batch, graph_id: int) -> Callable[[], object] | None:
        if graph_id not in self.warm:
            self.warm.add(graph_id)
            self.step(network, batch, graph_id)
            return None
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as one that pins the next training batch, may go on meanwhile.
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            self.step(network, batch, graph_id)
        graph.replay()
        return graph.replay


class Recorded:
    """A batch, and its recorded steps by graph id."""

    def __init__(self, batch: Batch, record: Recorder) -> None:
        self.batch, self.record = batch, record
        self.steps: dict[int, Callable[[], object]] = {}

    def step(self, network: CodeNetwork, graph_id: int) -> None:
        """The step at the batch's position."""
        again = self.steps.get(graph_id)
        if again is not None:
            again()
            return
        again = self.record(network, self.batch, graph_id)
        if again is not None:
            self.steps[graph_id] = again


class _Shelf:
    """What is kept for a network whose weights lie at some addresses."""

    def __init__(self, network: nn.Module) -> None:
        self.addresses = _addresses(network)
        self.batches: dict[Hashable, Recorded] = {}
        self.pool: Any = None


_shelves: WeakKeyDictionary[nn.Module, _Shelf] = WeakKeyDictionary()


def recorder(network: CodeNetwork, step: Step, device: torch.device, compiled: bool) -> Recorder:
    """How steps of a network are recorded on a device; all its CUDA graphs share a pool of memory."""
    if device.type != "cuda":
        return Compiled(step)
    shelf = _shelf(network)
    if shelf.pool is None:
        shelf.pool = torch.cuda.graph_pool_handle()
    return Captured(compiled_step(step) if compiled else step, shelf.pool)


def take(network: CodeNetwork, key: Hashable) -> Recorded | None:
    """The batch that is kept under a key, if the network's weights lie where they lay then; nobody else has it."""
    return _shelf(network).batches.pop(key, None)


def keep(network: CodeNetwork, key: Hashable, recorded: Recorded) -> None:
    """Keeps a batch for ``take``, if its state can be set to the start again."""
    if not opaque(recorded.batch.state):
        _shelf(network).batches[key] = recorded


def trim(network: CodeNetwork) -> None:
    """Drops the batches unused for longest, until those left take at most ``KEPT`` bytes."""
    batches = _shelf(network).batches
    while sum(recorded.batch.bytes for recorded in batches.values()) > KEPT:
        del batches[next(iter(batches))]


def forget(network: nn.Module | None = None) -> None:
    """Gives back the memory of what is kept for a network, or for all of them."""
    if network is None:
        _shelves.clear()
    else:
        _shelves.pop(network, None)


def _shelf(network: nn.Module) -> _Shelf:
    """A network's, a new one where its weights have moved."""
    shelf = _shelves.get(network)
    if shelf is None or shelf.addresses != _addresses(network):
        shelf = _shelves[network] = _Shelf(network)
    return shelf


def _addresses(network: nn.Module) -> tuple[Hashable, ...]:
    """Where the weights lie, and as what."""
    weights = chain(network.parameters(), network.buffers())
    return tuple((weight.data_ptr(), weight.dtype, weight.shape) for weight in weights)
