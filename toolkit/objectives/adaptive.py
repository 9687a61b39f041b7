"""The weight that VQGAN gives its adversarial term."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from toolkit.decoder import Decoder
from toolkit.device import in_float32
from toolkit.errors import ToolkitError
from toolkit.objectives.shares import SCALE, Shared, added, gradients, keep, measured

LARGEST = 1e4
"""Of the weight, before its factor."""


@final
class AdaptiveWeight(nn.Module):
    """Adds a term to a loss with the ratio of their gradients' norms for the weights of the decoder's last layer
    (Esser et al. 2021, arXiv:2012.09841, eq. 7), times a factor::

        w = weight |grad loss| / (|grad term| + 1e-4),    at most 1e4 before the factor
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.latest: Tensor
        self.register_buffer("latest", torch.zeros(()))

    def forward(self, loss: Tensor, term: Tensor, at: Tensor, factor: Tensor | float, last: Tensor) -> Shared:
        """As ``Share`` does; ``last``: the weights of the decoder's last layer."""
        if not measured(at):
            weight = factor * self.latest
            return Shared(loss + weight * term, weight, torch.zeros_like(weight))
        with in_float32(at.device):
            (of_loss,) = torch.autograd.grad(loss * SCALE, last, retain_graph=True)
            (of_term,) = torch.autograd.grad(term * SCALE, last, retain_graph=True)
        ratio = (of_loss.norm() / (of_term.norm() + 1e-4 * SCALE)).clamp(max=LARGEST).detach()
        weight = factor * self.weight * ratio.to(self.latest)
        if self.training:
            keep(self, "latest", self.weight * ratio.to(self.latest))
        return added(loss, term, at, gradients(loss, term, at), weight)


def last_weights(decoder: Decoder) -> Tensor:
    """Those of the decoder's last layer; ToolkitError where they are frozen, or there are none."""
    weights = [p for p in decoder.parameters() if p.dim() > 1]
    if not weights or not weights[-1].requires_grad:
        raise ToolkitError(
            "objective.balance=adaptive compares gradients for the weights of the decoder's last layer, and this"
            " decoder has none that are trained: choose balance=share, which compares them at the reconstruction"
        )
    return weights[-1]
