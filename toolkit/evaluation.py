"""Metrics of a model over a split: bits per dim, with its two terms, and what each metric measures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import fsum, isclose, log
from typing import Any, cast

import torch
from torch import Tensor

from toolkit.autoencoder import Autoencoder
from toolkit.batches import Batch
from toolkit.device import double, in_float32
from toolkit.distributed import all_gather_object, broadcast_object, on_rank0, ranks
from toolkit.fit import device_of
from toolkit.lengths.measured import apart, cost_of
from toolkit.metric import Metric, can_merge, judges_samples, measured
from toolkit.nn.noise import seeded
from toolkit.objective import Objective
from toolkit.prior import Prior


@dataclass
class Evaluation:
    """What a model costs and how it does, as means over examples."""

    examples: int = 0
    dims: float = 1
    """Numbers in an example."""
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
            **({} if isinstance(self.dims, int) else {"dims": self.dims}),
            **({"posterior_entropy": self.entropy} if self.entropy else {}),
            **self.metrics,
            "priors": rows,
        }

    def _row(self, code_nats: float) -> dict[str, float]:
        row = {"code_bits_per_dim": self.bits(code_nats)}
        return row if self.density else {**row, "bits_per_dim": self.bits(self.nll) + self.bits(code_nats)}


@dataclass
class _Sums:
    """What was added up over some batches: nats, in double precision, one number per batch."""

    examples: list[int] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    """Lengths of the examples, as shares of the data's own."""
    nll: list[float] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)
    code_nats: dict[str, list[float]] = field(default_factory=dict)
    intractable: dict[str, str] = field(default_factory=dict)
    """Why a prior has no tractable cost."""
    density: bool = False

    def join(self, other: _Sums) -> None:
        """Adds those of the batches after these."""
        self.examples += other.examples
        self.lengths += other.lengths
        self.nll += other.nll
        self.entropy += other.entropy
        for name, nats in other.code_nats.items():
            self.code_nats.setdefault(name, []).extend(nats)
        self.intractable |= other.intractable
        self.density |= other.density


def can_share(metrics: Sequence[Metric]) -> bool:
    """Whether several ranks may share the batches: all metrics can be merged."""
    return ranks() > 1 and all(can_merge(metric) for metric in metrics)


@torch.no_grad()
def evaluate_parts(
    objective: Objective,
    autoencoder: Autoencoder,
    batches: Iterable[Batch],
    metrics: Iterable[Metric] = (),
    priors: Mapping[str, Prior] | None = None,
    *,
    training: Iterable[Batch] = (),
    samples: Iterable[Batch] = (),
    progress: Callable[[int], None] = lambda _: None,
    shared: bool = False,
) -> Evaluation:
    """Goes through the batches once, in true float32, after fitting the fitted metrics to those of ``training``, and
    then through ``samples``, which the metrics that judge samples get.

    The row of a prior without a tractable log_prob is empty, and a warning says why.

    A learned prior's cost of the codes c is ``-log p(c) - H(q)``, with c sampled from the posterior q and H its
    entropy, which is 0 where codes are a function of x. The samples are the same at every call.

    ``shared``: whether the ranks share the batches, each with its stretch of them and of ``training``; then the result
    is that of one rank with all of them, on every rank. All metrics must have a ``merge``.
    """
    for part in (objective, autoencoder, *(priors or {}).values()):
        part.eval()
    metrics = list(metrics)
    with in_float32(device_of(autoencoder)):
        _fit(metrics, objective, autoencoder, training)
        sums = _measure(objective, autoencoder, batches, metrics, dict(priors or {}), progress)
        _judge([metric for metric in metrics if judges_samples(metric)], samples)
    if not shared:
        return _evaluation(sums, metrics, autoencoder)
    parts = all_gather_object((sums, [metric.state() for metric in metrics]))
    return cast(Evaluation, broadcast_object(on_rank0(partial(_joined, parts, metrics, autoencoder))))


def _joined(parts: list[tuple[_Sums, list[Any]]], metrics: list[Metric], autoencoder: Autoencoder) -> Evaluation:
    """That of all ranks, from what each of them measured; the metrics are rank 0's."""
    (sums, _), *others = parts
    for other, states in others:
        sums.join(other)
        for metric, state in zip(metrics, states, strict=True):
            metric.merge(state)
    return _evaluation(sums, metrics, autoencoder)


def _measure(
    objective: Objective,
    autoencoder: Autoencoder,
    batches: Iterable[Batch],
    metrics: list[Metric],
    priors: dict[str, Prior],
    progress: Callable[[int], None],
) -> _Sums:
    code_spec = autoencoder.code_spec
    reference = "uniform" if code_spec.depth else "normal"
    sums = _Sums(code_nats={reference: []})
    for batch in batches:
        with seeded(batch.number):
            bound = objective.bound(autoencoder.masked(batch.mask), batch.x, batch.conditions)
        lengths = _lengths(batch, autoencoder)
        sums.examples.append(len(batch.x))
        sums.lengths.append(float(lengths.sum()))
        sums.density = bound.likelihood.density
        sums.nll.append(float(double(bound.data_nats).sum()))
        sums.code_nats[reference].append(float(double(bound.code_nats).sum()))
        entropy = lengths * (code_spec.rate * log(2)) - double(bound.quantized.kl)
        sums.entropy.append(float(entropy.sum()))
        # A learned prior is judged by one sample, however many the bound averages.
        spread = 0.0 if bound.single_sample_nats is None else double(bound.single_sample_nats - bound.data_nats)
        for name in list(priors):
            try:
                cost = cost_of(priors[name], bound.quantized.codes, batch)
            except NotImplementedError as e:
                sums.intractable[name] = str(e)
                del priors[name]
                continue
            sums.code_nats.setdefault(name, []).append(float((double(cost) - entropy + spread).sum()))
        for x, of, conditions in apart(batch, bound):
            for metric in metrics:
                metric.update(x, of, conditions)
        progress(sum(sums.examples))
    return sums


def _evaluation(sums: _Sums, metrics: list[Metric], autoencoder: Autoencoder) -> Evaluation:
    """Means over examples."""
    code_spec = autoencoder.code_spec
    examples, data = sum(sums.examples), autoencoder.data
    count = max(1, examples)
    length = fsum(sums.lengths) / count if sums.lengths else 1.0
    rate = length * (code_spec.rate * log(2))
    entropy = fsum(sums.entropy) / count
    code_nats = {name: fsum(nats) / count for name, nats in sums.code_nats.items()}
    reference = next(iter(code_nats))
    # One-hot codes cost the rate and have no entropy, without rounding.
    if isclose(code_nats[reference], rate, rel_tol=1e-6):
        code_nats[reference] = rate
    intractable = [f"prior={name} has no code bits: {reason}" for name, reason in sums.intractable.items()]
    return Evaluation(
        examples=examples,
        dims=data.dims if length == 1 else data.dims * length,
        nll=fsum(sums.nll) / count,
        density=sums.density,
        code_nats=code_nats,
        entropy=0.0 if entropy < 1e-6 * rate else entropy,
        rate=code_spec.rate * length if code_spec.depth else None,
        intractable=tuple(sums.intractable),
        metrics={name: value for metric in metrics for name, value in measured(metric).items()},
        warnings=intractable + [text for metric in metrics for text in metric.warnings()],
    )


def _lengths(batch: Batch, autoencoder: Autoencoder) -> Tensor:
    """Of each example ``(batch,)``, its length as a share of the data's own, in double precision."""
    own = torch.full((len(batch.x),), batch.x.shape[2]) if batch.mask is None else batch.mask.sum(1)
    return double(own.to(batch.x.device)) / autoencoder.data.axes[0]


def _fit(metrics: list[Metric], objective: Objective, autoencoder: Autoencoder, training: Iterable[Batch]) -> None:
    """Fits the metrics that learn from training examples; without any, no example is read."""
    fitted = [metric for metric in metrics if metric.fitted]
    for batch in training if fitted else ():
        with seeded(batch.number):
            bound = objective.bound(autoencoder.masked(batch.mask), batch.x, batch.conditions)
        for x, of, conditions in apart(batch, bound):
            for metric in fitted:
                metric.fit(x, of, conditions)


def _judge(metrics: list[Metric], samples: Iterable[Batch]) -> None:
    """Gives samples to the metrics that judge them; without any, none is drawn."""
    for batch in samples if metrics else ():
        for metric in metrics:
            metric.update_samples(batch.x, batch.conditions)
