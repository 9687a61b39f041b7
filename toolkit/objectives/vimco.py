"""The multi-sample bound."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import final

import torch
from torch import Tensor

from toolkit.autoencoder import Autoencoder
from toolkit.objective import Bound, Loss, Objective
from toolkit.objectives.samples import sample_codes, with_gradient_of
from toolkit.ranges import PositiveInt


@final
class VIMCO(Objective):
    """A bound over several samples of the codes, each with the others as baseline (Mnih & Rezende 2016,
    arXiv:1602.06725)::

        L = log 1/n sum_i w_i,    w_i = p(x | c_i) p(c_i) / q(c_i | x),    c_i ~ q(c | x),    p(c) uniform

    Its gradient is estimated by::

        sum_i (L - L_-i) grad log q(c_i | x)  +  sum_i w_i / (sum_j w_j) grad log w_i

    where L_-i is L with w_i replaced by the geometric mean of the other weights. The first sum reaches the encoder,
    the second the decoder and the codebook and, through log q, the encoder.

    The loss is the value of -L, averaged over the batch, with this gradient. Its terms are those of a single sample, to
    be comparable with other objectives': ``nll + kl`` exceeds the loss by what several samples gain.

    Args:
        samples: samples per example, n; at least 2.
    """

    needs_posterior = True

    def __init__(self, *, samples: PositiveInt = 50) -> None:
        super().__init__()
        if samples < 2:
            raise ValueError(f"samples={samples}: at least 2, since the others are each sample's baseline")
        self.samples = samples

    def forward(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        samples = sample_codes(autoencoder, x, conditions, self.samples)
        log_w = samples.log_w
        bound = log_mean(log_w)
        score = (leave_one_out_advantage(log_w.detach()) * samples.log_q).sum(0)
        terms = {"nll": -samples.log_px.mean(), "kl": samples.quantized.kl.mean()}
        return Loss(-with_gradient_of(bound, bound + score).mean(), terms, samples.likelihood, samples.quantized)

    def bound(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Bound:
        """The bound over ``samples`` samples. ``data_nats`` is their mean weighted by w, ``code_nats`` the rest."""
        samples = sample_codes(autoencoder, x, conditions, self.samples)
        data_nats = -(samples.log_w.softmax(0) * samples.log_px).sum(0)
        code_nats = -log_mean(samples.log_w) - data_nats
        return Bound(data_nats, code_nats, samples.likelihood, samples.quantized, -samples.log_px[0])


def log_mean(log_w: Tensor) -> Tensor:
    """``(n, batch)`` to the log of the mean weight, ``(batch,)``."""
    return log_w.logsumexp(0) - log(len(log_w))


def leave_one_out_advantage(log_w: Tensor) -> Tensor:
    """What each sample adds to the bound: L - L_-i, ``(n, batch)``.

    Relative to the mean of all log weights, the others' mean is ``-log_w / (n - 1)``, and no digits are lost.
    """
    n = len(log_w)
    log_w = log_w - log_w.mean(0)
    own = torch.eye(n, dtype=torch.bool, device=log_w.device).unsqueeze(2)
    without = torch.where(own, (log_w / (1 - n)).unsqueeze(1), log_w)
    return log_w.logsumexp(0) - without.logsumexp(1)
