"""``spec.json`` beside exported graphs: data, codes and conditions in numbers, for those who have no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from toolkit.exporting.axes import spelled
from toolkit.exporting.graphs import Graph
from toolkit.exporting.stepping import DEPTHS, START, Stepping
from toolkit.exporting.tensors import type_name
from toolkit.model import Model
from toolkit.spec import Condition, DataSpec

FORMAT = 1
"""Of the file; raised when what stands there changes its meaning."""


def described(model: Model, graphs: Mapping[str, Graph], files: Mapping[str, str]) -> dict[str, Any]:
    """What the file holds."""
    codes = model.code_spec
    seen = model.autoencoder.decoder_conditions if "decoder" in graphs else ()
    return {
        "format": FORMAT,
        "run": {"step": model.checkpoint.step, "weights": model.checkpoint.weights_hash},
        "graphs": {name: {"file": files[name], **_ends(graph)} for name, graph in graphs.items()},
        "data": _data(model.spec),
        "codes": {
            "depth": codes.depth,
            "grid": list(codes.grid),
            "codebook_sizes": list(codes.codebook_sizes),
            **({"parts": [list(part) for part in codes.parts]} if codes.parts else {}),
        },
        "latents": {"channels": model.autoencoder.quantizer.dim, "grid": list(model.autoencoder.grid)},
        "conditions": [_condition(c) for c in model.spec.conditions if c.name in seen],
    }


def described_prior(model: Model, stepping: Stepping, files: Mapping[str, str]) -> dict[str, Any]:
    """A prior's graphs: which to call at which position, and which of their outputs go into the next."""
    codes = stepping.prior.code_spec
    seen = stepping.prior.conditions_seen
    length = model.data.axes[0]
    return {
        "graphs": {name: {"file": files[name], **_ends(graph)} for name, graph in stepping.graphs.items()},
        "name": stepping.name,
        "grid": list(codes.grid),
        "codebook_sizes": list(codes.codebook_sizes),
        "conditions": [{**_condition(c), "steps": [c.steps(length)] if c.per_step else []} for c in seen],
        "start": START,
        "steps": list(stepping.steps),
        **({"depths": DEPTHS} if DEPTHS in stepping.graphs else {}),
        "state": list(stepping.state),
        "changing": list(stepping.changing),
    }


def _ends(graph: Graph) -> dict[str, Any]:
    """Inputs with types and shapes, and outputs."""
    with torch.no_grad():
        result = graph.module(*graph.inputs.values())
    outputs = result if isinstance(result, tuple) else (result,)
    return {
        "inputs": [
            {"name": name, "type": type_name(value), "shape": spelled(tuple(value.shape), graph.axes[name])}
            for name, value in graph.inputs.items()
        ],
        "outputs": [
            {"name": name, "type": type_name(value)} for name, value in zip(graph.outputs, outputs, strict=True)
        ],
    }


def _data(data: DataSpec) -> dict[str, Any]:
    """Levels become numbers in [-1, 1], which a likelihood's mean is in, as ``level * factor + offset``."""
    scale = {"factor": 1.0, "offset": 0.0} if data.levels is None else {"factor": 2 / (data.levels - 1), "offset": -1.0}
    return {
        "channels": data.channels,
        "axes": list(data.axes),
        "levels": data.levels,
        **({"scale": scale} if data.ordered else {}),
        **({"rates": list(data.rates)} if data.rates else {}),
    }


def _condition(condition: Condition) -> dict[str, Any]:
    """A label is its place in ``labels``; ``none`` is the number of no label."""
    about: dict[str, Any] = {"name": condition.name, "size": condition.size, "real": condition.real}
    if not condition.real:
        about |= {"labels": list(condition.labels), "none": condition.size}
    return {**about, **({"positions_per_step": condition.stride} if condition.per_step else {})}
