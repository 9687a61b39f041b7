"""Examples that are sampled together: all that a step reads and writes, at addresses that never change."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from toolkit.causal.code_network import CodeNetwork
from toolkit.causal.context import Context, cloned, copied, shapes
from toolkit.prior import SamplingOptions


class Examples(NamedTuple):
    """What codes are sampled for."""

    grid: tuple[int, ...]
    sampling: SamplingOptions
    context: Context | None
    """Of all branches, ``(branches * n, …)``: with conditions and, for guidance, without."""
    known: Tensor
    """``(n, depth, first positions)``."""
    noise: Tensor
    """A random number per code, ``(n, depth, positions)``."""
    given: Tensor | None = None
    """Codes to take in place of sampled ones, ``(n, depth, positions)``; -1: sample."""

    @property
    def branches(self) -> int:
        """How often each example is in the batch."""
        return 1 if self.sampling.guidance == 1.0 else 2

    @property
    def signature(self) -> Hashable:
        """What examples have in common whose steps are the same operations on tensors of the same shapes."""
        context, noise = shapes(self.context), self.noise
        return self.grid, self.sampling, context, noise.shape, noise.dtype, noise.device, self.given is None


class Batch:
    """The state, random numbers and codes of a batch, so that a recorded step can be run again for other examples.

    It keeps no reference to the network, whose weights are read anew by ``restart``.
    """

    def __init__(self, network: CodeNetwork, examples: Examples, state: Any = None) -> None:
        """``state`` is one to go on from; None: the network's before the first position."""
        self.grid, self.sampling, self.branches = examples.grid, examples.sampling, examples.branches
        noise, context = examples.noise, examples.context
        self.n = len(noise)
        self.context = cloned(context)
        self.state: Any = network.init(self.branches * self.n, self.grid, self.context) if state is None else state
        # Positions first, so that a step reads and writes contiguous memory.
        self.noise = noise.permute(2, 1, 0).contiguous()
        self.given = None if examples.given is None else examples.given.permute(2, 1, 0).contiguous()
        self.codes = torch.zeros(self.noise.shape, dtype=torch.int64, device=noise.device)
        self.position = torch.zeros(1, dtype=torch.int64, device=noise.device)

    def restart(self, network: CodeNetwork, examples: Examples) -> None:
        """Other examples of the same signature, and the weights of now, in the same memory."""
        if self.context is not None and examples.context is not None:
            copied(self.context, examples.context)
        refill(self.state, network.init(self.branches * self.n, self.grid, self.context))
        self.noise.copy_(examples.noise.permute(2, 1, 0))
        if self.given is not None and examples.given is not None:
            self.given.copy_(examples.given.permute(2, 1, 0))
        self.codes.zero_()

    def prefill(self, network: CodeNetwork, known: Tensor) -> None:
        """Starts a new or restarted batch after the known codes ``(n, depth, positions)``."""
        first = known.shape[2]
        self.position.fill_(first)
        if first:
            self.codes[:first] = known.permute(2, 1, 0)
            network.prefill(self.state, self.grid, known.repeat(self.branches, 1, 1))

    @property
    def bytes(self) -> int:
        """What the state and the codes take."""
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors(self.state)}
        return sum(storages.values()) + self.noise.nbytes + self.codes.nbytes


def refill(state: Any, fresh: Any) -> None:
    """The numbers of a fresh state into one of the same shapes; what both share, such as weights, stays."""
    done = set[int]()
    for to, new in zip(tensors(state), tensors(fresh), strict=True):
        target, source = to.untyped_storage(), new.untyped_storage()
        # A tensor and its views lie in one storage, which is copied once.
        if target.data_ptr() not in done and target.data_ptr() != source.data_ptr():
            target.copy_(source)
        done.add(target.data_ptr())


def tensors(state: Any) -> list[Tensor]:
    """The tensors of a state of nested tuples, lists and dicts."""
    return [leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor)]


def opaque(state: Any) -> bool:
    """Whether a state has parts that may contain tensors, but not where ``tensors`` looks."""
    return any(not isinstance(leaf, Tensor | int | float | str | None) for leaf in tree_leaves(state))
