"""Metrics of a model over a split: bits per dim, with its two terms, and what each metric measures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import isclose, log
from typing import Any

import torch

from toolkit.autoencoder import Autoencoder
from toolkit.batches import Batch
from toolkit.metric import Metric
from toolkit.nn.noise import seeded
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
    """Nats of an example's codes by prior; first that under which stage one was trained: ``uniform`` over codes, or
    ``normal`` over a continuous bottleneck."""
    entropy: float = 0.0
    """Nats of an example's code posterior, by which a learned prior's cost is reduced; 0 where codes follow from x."""
    rate: float | None = None
    """Bits of an example's codes at a uniform prior; None where there are no codes."""
    intractable: tuple[str, ...] = ()
    """Priors without a tractable cost of the codes."""
    metrics: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def bits(self, nats: float) -> float:
        return nats / (self.dims * log(2))

    def metrics_by_name(self) -> dict[str, Any]:
        """By the names under which they are stored; ``priors`` has a row for each prior."""
        bits = {} if self.density else {"data_bits_per_dim": self.bits(self.nll)}
        uniform = self.code_nats.get("uniform")
        rows: dict[str, Mapping[str, float | None]] = {name: self._row(nats) for name, nats in self.code_nats.items()}
        rows |= {name: dict.fromkeys(rows[next(iter(rows))]) for name in self.intractable}
        best = min(self.code_nats, key=self.code_nats.__getitem__)
        return {
            "examples": self.examples,
            "nll": self.nll,
            **bits,
            **({} if uniform is None else {"uniform_code_bits_per_dim": self.bits(uniform)}),
            "prior": best,
            **rows[best],
            **({} if self.rate is None else {"rate": self.rate}),
            **({"posterior_entropy": self.entropy} if self.entropy else {}),
            **self.metrics,
            "priors": rows,
        }

    def _row(self, code_nats: float) -> dict[str, float]:
        row = {"code_bits_per_dim": self.bits(code_nats)}
        return row if self.density else {**row, "bits_per_dim": self.bits(self.nll) + self.bits(code_nats)}


@torch.no_grad()
def evaluate_parts(
    objective: Objective,
    autoencoder: Autoencoder,
    batches: Iterable[Batch],
    metrics: Iterable[Metric] = (),
    priors: Mapping[str, Prior] | None = None,
    *,
    training: Iterable[Batch] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Goes through the batches once, after fitting the fitted metrics to those of ``training``.

    The row of a prior without a tractable log_prob is empty, and a warning says why.

    A learned prior's cost of the codes c is ``-log p(c) - H(q)``, with c sampled from the posterior q and H its
    entropy, which is 0 where codes are a function of x. The samples are the same at every call.
    """
    for part in (objective, autoencoder, *(priors or {}).values()):
        part.eval()
    code_spec = autoencoder.code_spec
    result = Evaluation(dims=autoencoder.data.dims, rate=code_spec.rate if code_spec.depth else None)
    reference = "uniform" if code_spec.depth else "normal"
    nats: dict[str, float] = {reference: 0.0}
    metrics, priors = list(metrics), dict(priors or {})
    _fit(metrics, objective, autoencoder, training)
    for number, batch in enumerate(batches):
        with seeded(number):
            bound = objective.bound(autoencoder, batch.x, batch.conditions)
        result.examples += len(batch.x)
        result.density = bound.likelihood.density
        result.nll += float(bound.data_nats.double().sum())
        nats[reference] += float(bound.code_nats.double().sum())
        entropy = code_spec.rate * log(2) - bound.quantized.kl.double()
        result.entropy += float(entropy.sum())
        # A learned prior is judged by one sample, however many the bound averages.
        spread = 0.0 if bound.single_sample_nats is None else (bound.single_sample_nats - bound.data_nats).double()
        for name in list(priors):
            try:
                cost = -priors[name].log_prob(bound.quantized.codes, batch.conditions)
            except NotImplementedError as e:
                result.warnings.append(f"prior={name} has no code bits: {e}")
                result.intractable += (name,)
                del priors[name]
                continue
            nats[name] = nats.get(name, 0.0) + float((cost.double() - entropy + spread).sum())
        for metric in metrics:
            metric.update(batch.x, bound, batch.conditions)
        progress(result.examples)
    count = max(1, result.examples)
    result.nll /= count
    result.code_nats = {name: value / count for name, value in nats.items()}
    rate = code_spec.rate * log(2)
    result.entropy /= count
    # One-hot codes cost the rate and have no entropy, without rounding.
    if result.entropy < 1e-6 * rate:
        result.entropy = 0.0
    if isclose(result.code_nats[reference], rate, rel_tol=1e-6):
        result.code_nats[reference] = rate
    for metric in metrics:
        result.metrics.update(metric.compute())
        result.warnings += metric.warnings()
    return result


def _fit(metrics: list[Metric], objective: Objective, autoencoder: Autoencoder, training: Iterable[Batch]) -> None:
    """Fits the metrics that learn from training examples; without any, no example is read."""
    fitted = [metric for metric in metrics if metric.fitted]
    for number, batch in enumerate(training if fitted else ()):
        with seeded(number):
            bound = objective.bound(autoencoder, batch.x, batch.conditions)
        for metric in fitted:
            metric.fit(batch.x, bound, batch.conditions)
