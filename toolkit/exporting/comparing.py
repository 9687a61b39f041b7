"""What a graph gives beside what the model gives: what differs, and which of the two is faster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor

from toolkit.exporting.graphs import Graph
from toolkit.exporting.modules import Encode
from toolkit.exporting.tensors import stored, type_name
from toolkit.exporting.tracing import ExportError
from toolkit.model import Model
from toolkit.spec import DataSpec

AT_ONCE = 16
"""Examples in a batch."""

ROUNDING = 1e-5
"""By how much sums in another order may differ: as a share of the largest latent, and of the data's range."""
DRAWS = 32
"""How often latents are moved by as much, in random directions, to see whether a code is a tie."""

REPEATS = 5
"""Timed calls, of which the median counts."""

Run = Callable[[Mapping[str, Tensor]], tuple[Tensor, ...]]
"""Inputs by name to outputs, by another program."""


@torch.no_grad()
def compared(
    model: Model, graphs: Mapping[str, Graph], runs: Mapping[str, Run], batch: Mapping[str, Tensor]
) -> dict[str, Any]:
    """By graph: what differs over a batch of data and conditions, alone and side by side; examples per second of both.

    Codes that decoder and embed are given are the model's own.
    """
    coded = "codes" if model.code_spec.depth else "latents"
    encode = graphs["encoder"].module if "encoder" in graphs else Encode(model).eval()
    x = stored(batch["x"], model.spec)
    whole = {"x": x, **{name: value for name, value in batch.items() if name != "x"}}
    whole[coded] = torch.cat([encode(part) for part in x.split(AT_ONCE)])
    return {name: _of_graph(model, graph, runs[name], whole) for name, graph in graphs.items()}


def _of_graph(model: Model, graph: Graph, run: Run, whole: Mapping[str, Tensor]) -> dict[str, Any]:
    def plain(inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        result = graph.module(*inputs.values())
        return result if isinstance(result, tuple) else (result,)

    differences: dict[str, Any] = {}
    for inputs in _batches(graph, whole):
        ours = plain(inputs)
        try:
            theirs = run(inputs)
        except Exception as e:
            shapes = ", ".join(f"{key} {tuple(value.shape)}" for key, value in inputs.items())
            raise ExportError(f"the graph {graph.name} fails on {shapes}: {str(e).strip().splitlines()[0]}") from e
        for name, expected, value in zip(graph.outputs, ours, theirs, strict=True):
            if (expected.shape, expected.dtype) != (value.shape, value.dtype):
                raise ExportError(f"the graph {graph.name} gives {name} {_form(value)}, the model {_form(expected)}")
            found = _difference(expected, value)
            if name == "codes" and found["unequal"]:
                found["ties"] = ties(model, inputs["x"], expected, value)
            elif name == "x" and found.get("unequal"):
                found["ties"] = level_ties(model.spec, ours[1], expected, value)
            differences[name] = _joined(differences.get(name, {}), found)
    some = {name: whole[name][:AT_ONCE] for name in graph.inputs}
    n = len(next(iter(some.values())))
    seconds = _timed([lambda: plain(some), lambda: run(some)])
    speeds = {who: round(n / s, 2) for who, s in zip(("torch", "graph"), seconds, strict=True)}
    return {"outputs": differences, "examples_per_second": speeds}


def _batches(graph: Graph, whole: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The first example alone, then the others; where lengths are free, one twice as long, too."""
    inputs = {name: whole[name] for name in graph.inputs}
    n = len(next(iter(inputs.values())))
    for start, stop in ((0, 1), *((start, start + AT_ONCE) for start in range(1, n, AT_ONCE))):
        yield {name: value[start:stop].contiguous() for name, value in inputs.items()}
    first = {name: min((axis for axis in free if axis), default=0) for name, free in graph.axes.items()}
    if any(first.values()):
        longer = {
            name: torch.cat([value[:1]] * 2, first[name]) if first[name] else value[:1]
            for name, value in inputs.items()
        }
        yield longer


def _difference(expected: Tensor, value: Tensor) -> dict[str, Any]:
    of = {"numbers": expected.numel()}
    if expected.is_floating_point():
        return {**of, "largest_difference": (expected.double() - value.double()).abs().max().item()}
    unequal = expected != value
    most = (expected.long() - value.long()).abs().max().item()
    return {**of, "unequal": int(unequal.sum()), "largest_difference": most}


def _form(t: Tensor) -> str:
    return f"{tuple(t.shape)} {type_name(t)}"


def _joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Counts are added, of differences the largest remains."""
    values = {**one, **other}
    for key in one.keys() & other.keys():
        values[key] = max(one[key], other[key]) if key == "largest_difference" else one[key] + other[key]
    return values


def ties(model: Model, x: Tensor, expected: Tensor, codes: Tensor) -> int:
    """How many unequal codes the model gives, too, once its latents are moved by no more than rounding moves them."""
    own = x if model.base is None else Encode(model.base).eval()(x)
    z = model.autoencoder.encode(own if model.data.levels is None else own.long())
    seed, wrong, tied = torch.Generator().manual_seed(0), expected != codes, torch.zeros_like(codes, dtype=torch.bool)
    size = ROUNDING * z.abs().max()
    for _ in range(DRAWS):
        moved = z + size * (torch.rand(z.shape, generator=seed) * 2 - 1)
        tied |= model.autoencoder.quantizer(moved).codes == codes
    return int((wrong & tied).sum())


def level_ties(data: DataSpec, mean: Tensor, expected: Tensor, levels: Tensor) -> int:
    """How many unequal levels are neighbors, with the mean so near to their border that rounding decides."""
    assert data.levels is not None
    border = torch.minimum(expected, levels) + 0.5
    place = (mean.clamp(-1, 1) + 1) * ((data.levels - 1) / 2)
    near = (place - border).abs() <= ROUNDING * data.levels
    return int((near & ((expected.long() - levels.long()).abs() == 1)).sum())


def _timed(calls: list[Callable[[], object]]) -> list[float]:
    """Seconds of each, in turns after a first call."""
    taken: list[list[float]] = [[] for _ in calls]
    for repeat in range(REPEATS + 1):
        for call, seconds in zip(calls, taken, strict=True):
            begun = time.perf_counter()
            call()
            if repeat:
                seconds.append(time.perf_counter() - begun)
    return [median(seconds) for seconds in taken]
