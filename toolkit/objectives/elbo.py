"""The evidence lower bound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from toolkit.autoencoder import Autoencoder
from toolkit.objective import Bound, Loss, Objective
from toolkit.objectives.samples import single_sample_bound


@final
class ELBO(Objective):
    """Reconstruction, code cost and quantizer loss (van den Oord et al. 2017, eq. 3)::

        L = -log p(x | z_q) + KL(q(codes | x) || uniform) + |sg[z] - e|^2 + beta |z - sg[e]|^2

    averaged over the batch. ``-log p`` is summed over the dims of x, KL over positions; the last two, which the
    quantizer returns weighted, are norms summed over dim and averaged over positions, so beta is the paper's at any
    dim. (The paper prints ``+log p`` in a loss to be minimized: a sign error.) For a deterministic quantizer KL is the
    constant positions x log K, which the paper drops.
    """

    takes_padding = True

    def forward(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        quantized = autoencoder.quantize(x)
        likelihood = autoencoder.decode(quantized.z, conditions)
        terms = {
            "nll": -likelihood.log_prob(x).mean(),
            "kl": quantized.kl.mean(),
            "quantizer": quantized.loss.mean(),
        }
        return Loss(torch.stack(list(terms.values())).sum(), terms, likelihood, quantized)

    def bound(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Bound:
        return single_sample_bound(autoencoder, x, conditions)
