"""Figures of a model over a split: bits per dim, with both terms apart, and what each metric measures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import log
from typing import Any

import torch

from toolkit.autoencoder import Autoencoder
from toolkit.batches import Batch
from toolkit.metric import Metric
from toolkit.objective import Objective
from toolkit.prior import Prior


@dataclass
class Evaluation:
    """What a model costs and how it does, as means over examples."""

    examples: int = 0
    dims: int = 1
    nll: float = 0.0
    """Nats of an example's data given its codes."""
    density: bool = False
    """A density has no bits per dim."""
    code_nats: dict[str, float] = field(default_factory=dict)
    """Nats of an example's codes by prior; ``uniform`` is always there."""
    rate: float = 0.0
    """Bits of an example's codes at a uniform prior."""
    metrics: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def bits(self, nats: float) -> float:
        return nats / (self.dims * log(2))

    def figures(self) -> dict[str, Any]:
        """By the names under which they are stored; ``priors`` has a row for each prior."""
        bits = {} if self.density else {"data_bits_per_dim": self.bits(self.nll)}
        rows = {name: self._row(nats) for name, nats in self.code_nats.items()}
        best = min(self.code_nats, key=self.code_nats.__getitem__)
        return {
            "examples": self.examples,
            "nll": self.nll,
            **bits,
            "uniform_code_bits_per_dim": self.bits(self.code_nats["uniform"]),
            "prior": best,
            **rows[best],
            "rate": self.rate,
            **self.metrics,
            "priors": rows,
        }

    def _row(self, code_nats: float) -> dict[str, float]:
        row = {"code_bits_per_dim": self.bits(code_nats)}
        return row if self.density else {**row, "bits_per_dim": self.bits(self.nll) + self.bits(code_nats)}


@torch.no_grad()
def evaluate(
    objective: Objective,
    autoencoder: Autoencoder,
    batches: Iterable[Batch],
    metrics: Iterable[Metric] = (),
    priors: Mapping[str, Prior] | None = None,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Goes through the batches once. A prior without a tractable log_prob gets no row, and a warning says so."""
    for part in (objective, autoencoder, *(priors or {}).values()):
        part.eval()
    result = Evaluation(dims=autoencoder.data.dims, rate=autoencoder.latent.rate)
    nats: dict[str, float] = {"uniform": 0.0}
    metrics, priors = list(metrics), dict(priors or {})
    for batch in batches:
        bound = objective.bound(autoencoder, batch.x, batch.conditions)
        result.examples += len(batch.x)
        result.density = bound.likelihood.density
        result.nll += float(bound.data_nats.double().sum())
        nats["uniform"] += float(bound.code_nats.double().sum())
        for name in list(priors):
            try:
                cost = -priors[name].log_prob(bound.quantized.codes, batch.conditions)
            except NotImplementedError as e:
                result.warnings.append(f"prior={name} has no code bits: {e}")
                del priors[name]
                continue
            nats[name] = nats.get(name, 0.0) + float(cost.double().sum())
        for metric in metrics:
            metric.update(batch.x, bound)
        progress(result.examples)
    count = max(1, result.examples)
    result.nll /= count
    result.code_nats = {name: value / count for name, value in nats.items()}
    if autoencoder.latent.depth and not autoencoder.quantizer.has_posterior:
        result.code_nats["uniform"] = result.rate * log(2)  # one-hot codes cost the rate, without rounding
    for metric in metrics:
        result.metrics.update(metric.compute())
        result.warnings += metric.warnings()
    return result
