"""Terms of a loss that are given shares of its gradient, in place of weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from toolkit.distributed import all_reduce_mean
from toolkit.objectives.samples import with_gradient_of


class Shared(NamedTuple):
    """A loss with one more term."""

    loss: Tensor
    """0-d."""
    weight: Tensor
    """0-d: the factor that the term got."""
    share: Tensor
    """0-d: the share of the gradient that the term has in this batch."""


class Share(nn.Module):
    """Adds a term to a loss so that it has a given share of the gradient at the reconstruction.

    With n the mean over examples of the norms of an example's gradient there, of the loss and of the term, both moving
    averages over batches and ranks, the term's weight is ::

        w = share / (1 - share) n_loss / n_term

    so that the sum's norms stand in the ratio that was asked, whatever the terms' own scales (the balancer of Défossez
    et al. 2022, arXiv:2210.13438, section 3.4, for one term at a time: shares nest as objectives do, and each is of the
    loss up to its own term). The gradient through the reconstruction is computed once, and the term's own network is
    passed backward once.

    Args:
        share: from 0 to below 1.
        decay: of the moving averages.
    """

    def __init__(self, share: float, decay: float = 0.99) -> None:
        super().__init__()
        if not 0 <= share < 1:
            raise ValueError(f"share={share}: at least 0 and below 1")
        self.ratio, self.decay = share / (1 - share), decay
        self.norms: Tensor
        self.initialized: Tensor
        self.register_buffer("norms", torch.zeros(2))
        self.register_buffer("initialized", torch.zeros(()))

    def forward(self, loss: Tensor, term: Tensor, at: Tensor, factor: Tensor | float = 1.0) -> Shared:
        """Loss and term 0-d; ``at``: the reconstruction ``(batch, …)`` that both depend on; ``factor``: on the weight.

        Without gradients, as in evaluation, the weight is that of the last training step.
        """
        if not (torch.is_grad_enabled() and at.requires_grad):
            weight = factor * self._weight(self.norms)
            return Shared(loss + weight * term, weight, torch.zeros_like(weight))
        (of_loss,) = torch.autograd.grad(loss, at, retain_graph=True)
        # a likelihood may share a part of its graph between log_prob and mean; what only the term needs goes with it
        (of_term,) = torch.autograd.grad(term, at, retain_graph=True)
        now = torch.stack([_norm(of_loss), _norm(of_term)]).to(self.norms)
        if self.training:
            all_reduce_mean(now)
        weight = factor * self._weight(self._averaged(now))
        surrogate = (at * (weight * of_term)).sum()
        total = loss + with_gradient_of(weight * term, surrogate)
        weighted = weight * now[1]
        return Shared(total, weight, weighted / (now[0] + weighted).clamp(min=1e-12))

    def _weight(self, norms: Tensor) -> Tensor:
        return self.ratio * norms[0] / norms[1].clamp(min=1e-12)

    @torch.no_grad()
    def _averaged(self, now: Tensor) -> Tensor:
        """The moving averages with this batch, which in training are kept."""
        old = torch.where(self.initialized > 0, self.norms, now)
        averaged = old.lerp(now, 1 - self.decay)
        if self.training:
            self.norms.copy_(averaged)
            self.initialized.fill_(1)
        return averaged


def _norm(gradient: Tensor) -> Tensor:
    """The mean over examples of the norm of an example's gradient of a sum over the batch, 0-d."""
    norms: Tensor = gradient.detach().float().flatten(1).norm(dim=1)
    return norms.mean() * len(gradient)
