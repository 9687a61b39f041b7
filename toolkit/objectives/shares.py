"""Terms of a loss that are given shares of its gradient, in place of weights."""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from toolkit.device import in_float32
from toolkit.distributed import all_reduce_mean
from toolkit.errors import ToolkitError
from toolkit.likelihood import Distribution
from toolkit.nn.codebook import upcast
from toolkit.objectives.samples import with_gradient_of

SCALE = 1024.0
"""What losses are multiplied by while their gradients are measured, so that those of float16 do not vanish. A power of
two: of other numbers no bit is changed."""


class Shared(NamedTuple):
    """A loss with one more term."""

    loss: Tensor
    """0-d."""
    weight: Tensor
    """0-d: the factor that the term got."""
    share: Tensor
    """0-d: the share of the gradient that the term has in this batch."""


class Gradients(NamedTuple):
    """Those of a loss and of a further term, at the reconstruction."""

    of_term: Tensor
    """``(batch, …)``, times ``SCALE``: of the term."""
    norms: Tensor
    """``(2,)``: of the loss and of the term, the means over examples of the norms of an example's gradient."""


def reconstruction(likelihood: Distribution, objective: str) -> Tensor:
    """The mean, on the scale of ``DataSpec.scale``; ToolkitError, naming the objective, where there is none."""
    mean = likelihood.mean
    if mean is None:
        raise ToolkitError(
            f"objective={objective} judges the likelihood's mean, and this one has none, as it models each number given"
            " those before it, or numbers without an order: choose a decoder with likelihood=normal, logistic or"
            " categorical, or objective=elbo"
        )
    return mean


def measured_at(likelihood: Distribution) -> Tensor:
    """Where gradients of terms are compared: at the likelihood's parameters, of which its log_prob and its mean are
    functions, ``(batch, …)``; for a Gaussian they are its mean."""
    at = likelihood.mean if likelihood.given is None else likelihood.given
    if at is None:
        raise ToolkitError(f"{type(likelihood).__name__} has neither parameters nor a mean to measure gradients at")
    return at


def gradients(loss: Tensor, term: Tensor, at: Tensor) -> Gradients:
    """Those at a tensor ``(batch, …)`` that both depend on; their graphs are kept.

    ToolkitError where one of them does not.
    """
    with in_float32(at.device):
        of_loss, of_term = (_scaled_gradient(value, at) for value in (loss, term))
    if of_loss is None or of_term is None:
        raise ToolkitError(
            "the likelihood's mean is no part of the computation of its log_prob, so that their gradients cannot be"
            " compared: choose likelihood=normal, logistic or categorical, or set the distribution's `given`"
        )
    return Gradients(of_term, torch.stack([_norm(of_loss), _norm(of_term)]) * (len(at) / SCALE))


def _scaled_gradient(value: Tensor, at: Tensor) -> Tensor | None:
    """That of ``SCALE`` times a 0-d tensor, whose graph is kept; None where it does not depend on ``at``."""
    (gradient,) = torch.autograd.grad(value, at, torch.full_like(value, SCALE), retain_graph=True, allow_unused=True)
    return gradient


def added(loss: Tensor, term: Tensor, at: Tensor, of: Gradients, weight: Tensor) -> Shared:
    """Loss and weighted term, of which the latter's gradient is that which was measured: it is not computed again."""
    surrogate = (upcast(at) * (weight / SCALE * upcast(of.of_term))).sum()
    norms = of.norms * torch.stack([torch.ones_like(weight), weight])
    share = norms[1] / norms.sum().clamp(min=1e-12)
    return Shared(loss + with_gradient_of(weight * term, surrogate), weight, share)


def trace_gradients(module: nn.Module) -> None:
    """Has torch's compiler trace gradients that are computed in a forward pass; ToolkitError where a module needs that
    and this PyTorch cannot."""
    from torch._dynamo import config  # here, as it takes a second to import

    if hasattr(config, "trace_autograd_ops"):
        config.trace_autograd_ops = True
    elif any(isinstance(part, Share) for part in module.modules()):
        raise ToolkitError(
            f"compile=true: shares of the gradient are measured in the forward pass, and PyTorch {torch.__version__}"
            " cannot compile that: leave it out, or install a newer one"
        )


def measured(at: Tensor) -> bool:
    """Whether there are gradients to be measured; in evaluation there are none."""
    return torch.is_grad_enabled() and at.requires_grad


@final
class Share(nn.Module):
    """Adds a term to a loss so that it has a given share of the gradient at the reconstruction.

    With n the mean over examples, of all ranks, of the norms of an example's gradient there, of the loss and of the
    term, the term's weight is ::

        w = share / (1 - share) n_loss / n_term

    so that the sum's norms stand in the ratio that was asked, whatever the terms' own scales (the balancer of Défossez
    et al. 2022, arXiv:2210.13438, section 3.4, for one term at a time: shares nest as objectives do, and each is of the
    loss up to its own term). Unlike the paper's, the norms are each batch's own, not moving averages: where they change
    fast or from batch to batch, the share would not be what was asked. The gradient through the reconstruction is
    computed once, and the term's own network is passed backward once.

    Args:
        share: from 0 to below 1.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        if not 0 <= share < 1:
            raise ValueError(f"share={share}: at least 0 and below 1")
        self.ratio = share / (1 - share)
        self.latest: Tensor
        self.register_buffer("latest", torch.zeros(()))

    def forward(self, loss: Tensor, term: Tensor, at: Tensor, factor: Tensor | float = 1.0) -> Shared:
        """Loss and term 0-d; ``at``: ``measured_at`` the likelihood; ``factor``: on the weight.

        Without gradients, as in evaluation, the weight is that of the last training step.
        """
        if not measured(at):
            weight = factor * self.latest
            return Shared(loss + weight * term, weight, torch.zeros_like(weight))
        of = gradients(loss, term, at)
        norms = of.norms.to(self.latest)
        if self.training:
            all_reduce_mean(norms)
        # 0 where the term has no gradient
        weight = torch.where(norms[1] > 1e-12 * norms[0], self.ratio * norms[0] / norms[1].clamp(min=1e-30), 0.0)
        if self.training:
            keep(self, "latest", weight)
        return added(loss, term, at, of._replace(norms=norms), factor * weight)


def keep(module: nn.Module, name: str, value: Tensor) -> None:
    """Sets a buffer to a value, unless that is not finite: in place, so that a captured step finds it where it was;
    when compiled, anew, as a compiled backward pass may compute the forward one again from the current values."""
    value = torch.where(value.isfinite(), value, module.get_buffer(name))
    if torch.compiler.is_compiling():
        setattr(module, name, value)
    else:
        module.get_buffer(name).copy_(value)


def _norm(gradient: Tensor) -> Tensor:
    """The mean over examples of the norm of an example's gradient, 0-d; at least float32."""
    norms: Tensor = upcast(gradient.detach()).flatten(1).norm(dim=1)
    return norms.mean()
