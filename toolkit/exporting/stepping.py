"""A causal prior as graphs that go from position to position: state in, state out.

The state's tensors are the graph's inputs and outputs; weights, folded as the steps use them, are its constants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils._pytree import tree_flatten, tree_unflatten

from toolkit.causal.network import CausalNetwork
from toolkit.errors import ToolkitError
from toolkit.exporting.graphs import BATCH, Graph
from toolkit.exporting.tensors import random_codes, random_condition
from toolkit.model import Model
from toolkit.priors.autoregressive import AutoregressivePrior

START, STEP, DEPTHS = "prior_start", "prior_step", "prior_depths"
AFTER = "_after"
"""Ends the names of a state's tensors where they come out."""


@dataclass(frozen=True)
class Stepping:
    """A prior's graphs, and how they are called."""

    name: str
    prior: AutoregressivePrior
    graphs: Mapping[str, Graph]
    steps: tuple[str, ...]
    """The graph that leads to each position, from the second on."""
    state: tuple[str, ...]
    """What the start gives and a step takes."""
    changing: tuple[str, ...]
    """Those of them that a step gives anew."""


def stepping(model: Model, name: str | None) -> Stepping:
    """Graphs of a trained prior; ToolkitError where its codes do not follow one another."""
    name = name or model.config.chosen_prior().name
    prior = model.prior(name)
    why = _refusal(prior)
    if why or not isinstance(prior, AutoregressivePrior):
        raise ToolkitError(f"prior={name}: {why}; only a prior that goes code by code has a step to export")
    seed, known = torch.Generator().manual_seed(0), prior.conditions_seen
    length = model.data.axes[0]
    conditions = {c.name: random_condition(c, BATCH, length, seed) for c in known}
    codes = random_codes(prior.code_spec, BATCH, prior.code_spec.grid, seed).flatten(2)
    state = _State(prior, conditions)
    deep, grid = prior.code_spec.depth > 1, prior.code_spec.grid
    given = ("logits", *(["feature"] if deep else []))
    start = _Start(prior, state, tuple(conditions), deep)
    with torch.no_grad():
        leaves = start(torch.zeros(BATCH, dtype=torch.int64), *conditions.values())[len(given) :]
    batch = Dim("batch")
    free = {key: _free(batch, *axis) for key, axis in zip(state.names, state.axes, strict=True)}
    inputs = {"rows": torch.zeros(BATCH, dtype=torch.int64), **conditions}
    graphs = {START: Graph(START, start, inputs, {key: {0: batch} for key in inputs}, (*given, *state.names), (prior,))}
    ids = [prior.network.trunk.file_graph_id(grid, position) for position in range(1, prod(grid))]
    names = {i: STEP if len(set(ids)) == 1 else f"{STEP}_{i}" for i in sorted(set(ids))}
    outputs = (*given, *(f"{key}{AFTER}" for key in state.changing))
    for graph_id, step in names.items():
        inputs = {
            "position": torch.tensor([ids.index(graph_id)]),
            "codes": codes[:, :, 0],
            **dict(zip(state.names, leaves, strict=True)),
        }
        module = _Step(prior, state, graph_id, deep)
        graphs[step] = Graph(step, module, inputs, {"position": {}, "codes": {0: batch}, **free}, outputs, (prior,))
    if deep:
        feature = torch.randn(BATCH, prior.network.proj.out_features, generator=seed)
        inputs = {"feature": feature, "codes": codes[:, :, 0]}
        logits = tuple(f"logits{depth}" for depth in range(1, prior.code_spec.depth))
        axes = {key: {0: batch} for key in inputs}
        graphs[DEPTHS] = Graph(DEPTHS, _Depths(prior), inputs, axes, logits, (prior,))
    return Stepping(name, prior, graphs, tuple(names[i] for i in ids), state.names, state.changing)


def _refusal(prior: nn.Module) -> str:
    if not isinstance(prior, AutoregressivePrior):
        return "it has no causal network"
    grid, trunk = prior.code_spec.grid, prior.network.trunk
    if any(condition.text for condition in prior.conditions_seen):
        return "it reads texts"
    if prod(grid) < 2:
        return "its codes have a single position"
    if any(trunk.together(grid, trunk.graph_id(grid, p)) > 1 for p in range(prod(grid))):
        return "it samples many positions at once"
    return ""


@final
class _State:
    """Which leaves of a network's state are passed around: what depends on the examples, each memory once."""

    def __init__(self, prior: AutoregressivePrior, conditions: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            states = [self._new(prior, conditions, n) for n in (BATCH, BATCH - 1)]
            leaves, other = (tree_flatten(state)[0] for state in states)
        self.constants = leaves
        own = [i for i, (a, b) in enumerate(zip(leaves, other, strict=True)) if _shape(a) != _shape(b)]
        self.owners = {i: _owner(leaves, own, i) for i in own}
        """By leaf, the one that its memory is of."""
        self.bases = sorted(set(self.owners.values()))
        self.names = tuple(f"state{k}" for k in range(len(self.bases)))
        self.axes = [_differing(leaves[i], other[i]) for i in self.bases]
        self.changed = _changed(prior, states[0], [leaves[i] for i in self.bases])
        self.changing = tuple(name for name, is_new in zip(self.names, self.changed, strict=True) if is_new)

    @staticmethod
    def _new(prior: AutoregressivePrior, conditions: Mapping[str, Tensor], n: int) -> Any:
        known = {name: value[:n] for name, value in conditions.items()}
        grid = prior.code_spec.grid
        return prior.network.init(n, grid, prior.context(known, n, grid))

    def leaves(self, state: Any) -> list[Tensor]:
        """Of a state, those that are passed around."""
        flat = tree_flatten(state)[0]
        return [flat[i] for i in self.bases]

    def filled(self, fresh: Any, given: Sequence[Tensor]) -> Any:
        """A fresh state with the numbers given; its weights are the constants of the graph."""
        flat, spec = tree_flatten(fresh)
        alone = {i for i in self.bases if sum(owner == i for owner in self.owners.values()) == 1}
        for i, t in zip(self.bases, given, strict=True):
            if i in alone:
                flat[i] = t.clone()
            else:
                flat[i].copy_(t)  # its views, which the steps use, see it
        return tree_unflatten([t if i in self.owners else self.constants[i] for i, t in enumerate(flat)], spec)


def _shape(leaf: object) -> object:
    return tuple(leaf.shape) if isinstance(leaf, Tensor) else leaf


def _owner(leaves: Sequence[Any], own: Sequence[int], i: int) -> int:
    """The leaf that has all of the memory which leaf i lies in."""
    storage = leaves[i].untyped_storage()
    for j in own:
        same = leaves[j].untyped_storage().data_ptr() == storage.data_ptr()
        if same and leaves[j].is_contiguous() and leaves[j].nbytes == storage.nbytes():
            return j
    return i


def _differing(one: Tensor, other: Tensor) -> tuple[int, int]:
    """The axis that one example more makes longer, and by how much."""
    return next((axis, a - b) for axis, (a, b) in enumerate(zip(one.shape, other.shape, strict=True)) if a != b)


def _free(batch: Any, axis: int, each: int) -> dict[int, Any]:
    return {axis: batch if each == 1 else each * batch}


@torch.no_grad()
def _changed(prior: AutoregressivePrior, state: Any, leaves: Sequence[Tensor]) -> list[bool]:
    """Which of a state's tensors steps write to, over the first positions of every kind."""
    network, grid = prior.network, prior.code_spec.grid
    before = [leaf._version for leaf in leaves]
    for index in range(prod(grid)):
        position = torch.tensor([index])
        feature = network.step(state, network.trunk.file_graph_id(grid, index), position)
        _append(network, state, feature, position, torch.zeros(BATCH, len(network.codebook_sizes), dtype=torch.int64))
    return [leaf._version != was for leaf, was in zip(leaves, before, strict=True)]


def _append(network: CausalNetwork, state: Any, feature: Tensor, position: Tensor, codes: Tensor) -> None:
    for depth in range(len(network.codebook_sizes)):
        network.append(state, feature, position, depth, codes[:, depth])


class _Start(nn.Module):
    """Conditions to the first position's logits and the state there; ``rows`` says how many examples."""

    def __init__(self, prior: AutoregressivePrior, state: _State, conditions: tuple[str, ...], deep: bool) -> None:
        super().__init__()
        self.prior, self.state, self.conditions, self.deep = prior, state, conditions, deep

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        rows, *values = inputs
        n, grid, network = rows.shape[0], self.prior.code_spec.grid, self.prior.network
        context = self.prior.context(dict(zip(self.conditions, values, strict=True)), n, grid)
        state = network.init(n, grid, context)
        feature = network.step(state, network.trunk.file_graph_id(grid, 0), rows.new_zeros(1))
        own = [leaf.clone() for leaf in self.state.leaves(state)]
        return (*_given(network, state, feature, self.deep), *own)


class _Step(nn.Module):
    """The codes of a position, and the state there, to the next position's logits and state."""

    def __init__(self, prior: AutoregressivePrior, state: _State, graph_id: int, deep: bool) -> None:
        super().__init__()
        self.prior, self.state, self.graph_id, self.deep = prior, state, graph_id, deep

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        position, codes, *given = inputs
        n, grid, network = codes.shape[0], self.prior.code_spec.grid, self.prior.network
        state = self.state.filled(network.init(n, grid, self.prior.context({}, n, grid)), given)
        feature = codes.new_zeros(n, network.proj.out_features, dtype=network.proj.weight.dtype)
        _append(network, state, feature, position, codes)
        feature = network.step(state, self.graph_id, position + 1)
        leaves = zip(self.state.leaves(state), self.state.changed, strict=True)
        return (*_given(network, state, feature, self.deep), *(leaf for leaf, changed in leaves if changed))


class _Depths(nn.Module):
    """The feature and the first codes of a position to the logits of its other depths."""

    def __init__(self, prior: AutoregressivePrior) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        feature, codes = inputs
        logits, network = [], self.prior.network
        for depth, inner in enumerate(network.inner):
            feature = feature + inner(codes[:, depth])
            logits.append(network.heads[depth + 1](feature.relu()))
        return tuple(logits)


def _given(network: CausalNetwork, state: Any, feature: Tensor, deep: bool) -> tuple[Tensor, ...]:
    logits = network.logits(state, feature, 0)
    return (logits, feature.clone()) if deep else (logits,)
