"""A prior's graphs from position to position, beside what the prior gives in one pass."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from toolkit.exporting.comparing import Run
from toolkit.exporting.stepping import AFTER, DEPTHS, START, Stepping
from toolkit.exporting.tracing import ExportError
from toolkit.model import Model

FEW = 16
"""Examples whose codes are walked through."""


def walked(
    steps: Stepping, runs: Mapping[str, Run], codes: Tensor, conditions: Mapping[str, Tensor]
) -> list[list[Tensor]]:
    """The logits of codes ``(n, depth, positions)``: by position, of each depth ``(n, codebook_size)``."""
    rows = {"rows": torch.zeros(codes.shape[0], dtype=torch.int64), **conditions}
    out = dict(zip(steps.graphs[START].outputs, runs[START](rows), strict=True))
    state, logits = {name: out[name] for name in steps.state}, []
    for position, here in enumerate(codes.unbind(2)):
        own = [out["logits"]]
        if DEPTHS in runs:
            own += runs[DEPTHS]({"feature": out["feature"], "codes": here.contiguous()})
        logits.append(own)
        if position < len(steps.steps):
            name = steps.steps[position]
            inputs = {"position": torch.tensor([position]), "codes": here.contiguous(), **state}
            out = dict(zip(steps.graphs[name].outputs, runs[name](inputs), strict=True))
            state |= {key: out[f"{key}{AFTER}"] for key in steps.changing}
    return logits


@torch.no_grad()
def tried(model: Model, steps: Stepping, runs: Mapping[str, Run], batch: Mapping[str, Tensor]) -> dict[str, Any]:
    """What differs in the logits of some examples' codes, and codes per second of both, step by step."""
    x = batch["x"][:FEW]
    codes = model.encode(x)
    known = {c.name: batch[c.name][:FEW] for c in steps.prior.conditions_seen}
    network, grid = steps.prior.network, steps.prior.code_spec.grid
    expected = network(codes, steps.prior.context(known, len(codes), grid))
    whole = [depth.flatten(1, -2) for depth in expected]
    flat = codes.flatten(2)
    begun = time.perf_counter()
    try:
        given = walked(steps, runs, flat, known)
        one = walked(steps, runs, flat[:1], {name: value[:1] for name, value in known.items()})
    except Exception as e:
        raise ExportError(f"the graphs of prior={steps.name} fail: {str(e).strip().splitlines()[0]}") from e
    seconds = time.perf_counter() - begun
    plain = {name: _module(graph.module) for name, graph in steps.graphs.items()}
    begun = time.perf_counter()
    walked(steps, plain, flat, known)
    ours = time.perf_counter() - begun
    worst = 0.0
    for position, own in enumerate(given):
        for logits, alone, right in zip(own, one[position], whole, strict=True):
            worst = max(worst, float((logits - right[:, position]).abs().max()))
            worst = max(worst, float((alone - right[:1, position]).abs().max()))
    n = flat.numel()
    return {
        "name": steps.name,
        "logits": {"numbers": sum(depth.numel() for depth in whole), "largest_difference": worst},
        "codes_per_second": {"graph": round((n + n // len(flat)) / seconds, 1), "torch": round(n / ours, 1)},
    }


def _module(module: torch.nn.Module) -> Run:
    return lambda inputs: module(*inputs.values())
