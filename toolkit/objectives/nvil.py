"""The single-sample bound, with a learned baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from toolkit.autoencoder import Autoencoder
from toolkit.device import double
from toolkit.distributed import all_reduce_sum
from toolkit.objective import Bound, Loss, Objective
from toolkit.objectives.baseline import Baseline
from toolkit.objectives.samples import sample_codes, single_sample_bound, with_gradient_of
from toolkit.ranges import Decay, PositiveInt
from toolkit.spec import DataSpec


@final
class NVIL(Objective):
    """The evidence lower bound at one sample of the codes, for posteriors without relaxation (Mnih & Gregor 2014,
    arXiv:1402.0030)::

        l = log p(x | c) + log p(c) - log q(c | x),    c ~ q(c | x),    p(c) uniform
        signal = (l - mean) / max(1, std) - baseline(x)

    Decoder and codebook get ``grad log p(x | c)``, the encoder ``signal grad log q(c | x)``, and the baseline minimizes
    ``signal^2 / 2``, whose gradient reaches no other part. ``mean`` and ``std`` are moving averages of l over earlier
    batches and over all ranks; the first batch uses its own. Unlike the paper's, they are taken before the baseline is
    subtracted, so that it has to predict a number near 1, and not thousands of nats.

    The loss is the value of ``nll + kl``, averaged over the batch, with these gradients. The term ``baseline`` is
    ``signal^2 / 2``.

    Args:
        hidden: units of the baseline's hidden layer.
        decay: of the moving mean and variance.
    """

    needs_posterior = True

    def __init__(self, data: DataSpec, *, hidden: PositiveInt = 100, decay: Decay = 0.8) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError(f"hidden={hidden}: at least 1")
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay}: at least 0 and below 1")
        self.baseline, self.decay = Baseline(data, hidden), decay
        self.mean: Tensor
        self.variance: Tensor
        self.initialized: Tensor
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("variance", torch.tensor(0.0))
        self.register_buffer("initialized", torch.tensor(False))

    def forward(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        samples = sample_codes(autoencoder, x, conditions, 1)
        signal = self._normalized(samples.log_w[0]) - self.baseline(x)
        error = signal.square().mean() / 2
        terms = {"nll": -samples.log_px.mean(), "kl": samples.quantized.kl.mean()}
        surrogate = terms["nll"] - (signal.detach() * samples.log_q[0]).mean() + error
        loss = with_gradient_of(terms["nll"] + terms["kl"], surrogate)
        return Loss(loss, {**terms, "baseline": error}, samples.likelihood, samples.quantized)

    def bound(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Bound:
        return single_sample_bound(autoencoder, x, conditions)

    @torch.no_grad()
    def _normalized(self, bound: Tensor) -> Tensor:
        """``(batch,)``, normalized by earlier batches, so that mean and std do not depend on this batch's samples."""
        if not self.training:
            return _scaled(bound, self.mean, self.variance)
        mean, variance = (moment.to(self.mean) for moment in moments(bound))
        old_mean = torch.where(self.initialized, self.mean, mean)
        old_variance = torch.where(self.initialized, self.variance, variance)
        self._set("variance", old_variance.lerp(variance + (mean - old_mean).square(), 1 - self.decay))
        self._set("mean", old_mean.lerp(mean, 1 - self.decay))
        self._set("initialized", torch.ones_like(self.initialized))
        return _scaled(bound, old_mean, old_variance)

    def _set(self, name: str, value: Tensor) -> None:
        """Sets a buffer: in place, so that a captured step finds it where it was; when compiled, anew, as a compiled
        backward pass may compute the signal again from the current values.
        """
        if torch.compiler.is_compiling():
            setattr(self, name, value)
        else:
            self.get_buffer(name).copy_(value)


def _scaled(bound: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return (bound - mean) / variance.sqrt().clamp(min=1)


def moments(t: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over the batch of all ranks; in float64, since large sums are subtracted."""
    t = double(t)
    sums = torch.stack([torch.ones_like(t), t, t.square()]).sum(1)
    all_reduce_sum(sums)
    mean = sums[1] / sums[0]
    return mean, (sums[2] / sums[0] - mean.square()).clamp(min=0)
