"""The multi-sample bound."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import final

import torch
from torch import Tensor

from toolkit.autoencoder import Autoencoder
from toolkit.objective import Bound, Loss, Objective
from toolkit.objectives.draws import sample_codes, with_gradient_of


@final
class VIMCO(Objective):
    """A bound of several draws of the codes, each judged by the others (Mnih & Rezende 2016, arXiv:1602.06725)::

        L = log 1/n sum_i w_i,    w_i = p(x | c_i) p(c_i) / q(c_i | x),    c_i ~ q(c | x),    p(c) uniform

    Its gradient is estimated by::

        sum_i (L - L_-i) grad log q(c_i | x)  +  sum_i w_i / (sum_j w_j) grad log w_i

    where L_-i is L with w_i replaced by the geometric mean of the other weights. The first sum reaches the encoder,
    the second the decoder and the codebook and, through log q, the encoder.

    The loss is the value of -L, averaged over the batch, with this gradient. Its terms are those of a single draw and
    so comparable with other objectives': ``nll + kl`` is above the loss by what several draws gain.

    Args:
        samples: draws per example, n; at least 2.
    """

    needs_posterior = True

    def __init__(self, *, samples: int = 50) -> None:
        super().__init__()
        if samples < 2:
            raise ValueError(f"samples={samples}: at least 2, as each is judged by the others")
        self.samples = samples

    def forward(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        draws = sample_codes(autoencoder, x, conditions, self.samples)
        log_w = draws.log_w
        bound = log_mean(log_w)
        score = (leave_one_out_advantage(log_w.detach()) * draws.log_q).sum(0)
        terms = {"nll": -draws.log_px.mean(), "kl": draws.quantized.kl.mean()}
        return Loss(-with_gradient_of(bound, bound + score).mean(), terms, draws.likelihood, draws.quantized)

    def bound(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Bound:
        """The bound of as many draws. ``data_nats`` is their mean by the weights w, ``code_nats`` the rest."""
        draws = sample_codes(autoencoder, x, conditions, self.samples)
        data_nats = -(draws.log_w.softmax(0) * draws.log_px).sum(0)
        code_nats = -log_mean(draws.log_w) - data_nats
        return Bound(data_nats, code_nats, draws.likelihood, draws.quantized, -draws.log_px[0])


def log_mean(log_w: Tensor) -> Tensor:
    """``(n, batch)`` to the log of the mean weight, ``(batch,)``."""
    return log_w.logsumexp(0) - log(len(log_w))


def leave_one_out_advantage(log_w: Tensor) -> Tensor:
    """What each draw adds to the bound: L - L_-i, ``(n, batch)``.

    About the mean of all log weights, where the others' mean is ``-log_w / (n - 1)`` and no digits are lost.
    """
    n = len(log_w)
    log_w = log_w - log_w.mean(0)
    own = torch.eye(n, dtype=torch.bool, device=log_w.device).unsqueeze(2)
    without = torch.where(own, (log_w / (1 - n)).unsqueeze(1), log_w)
    return log_w.logsumexp(0) - without.logsumexp(1)
