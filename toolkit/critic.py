"""The critic of stage one's objective: an adversary that learns beside the rest, from a loss of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.autoencoder import Autoencoder
from toolkit.batches import Batch
from toolkit.device import autocast
from toolkit.distributed import all_reduce_mean, ranks
from toolkit.objective import Loss, Objective
from toolkit.optimization import Optimization, trainable
from toolkit.options import AutoencoderTrainerOptions


@contextmanager
def frozen(module: nn.Module | None) -> Iterator[None]:
    """No parameter of the module, if there is one, requires a gradient while the block lasts."""
    parameters = list(trainable(module).values()) if module is not None else []
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def share(loss: Tensor, passes: int) -> Tensor:
    """What a pass's loss is of a step's."""
    return loss if passes == 1 else loss / passes


@dataclass(frozen=True)
class Critic:
    """The critic of stage one's objective, and how it gets its gradients."""

    objective: Objective
    model: Autoencoder
    module: nn.Module
    optimization: Optimization
    options: AutoencoderTrainerOptions

    @classmethod
    def of(cls, stage: Any, optimization: Optimization) -> Critic | None:
        """The stage's, where it has one that is trained."""
        objective, options = getattr(stage, "objective", None), optimization.options
        module = getattr(objective, "critic", None)
        if module is None or not trainable(module) or not isinstance(options, AutoencoderTrainerOptions):
            return None
        return cls(stage.objective, stage.model, module, optimization, options)

    @property
    def learns(self) -> bool:
        """Whether it does in the step at hand."""
        return self.optimization.step >= self.options.critic_start

    def learn(self, output: Loss, batch: Batch) -> dict[str, Tensor]:
        """Adds the gradients of a batch, from the first step on; returns what is reported of it, before that a loss
        of 0."""
        if not self.learns:
            return {"critic_loss": output.loss.detach().new_zeros(())}
        parameters = list(trainable(self.module).values())
        with autocast(batch.x.device, self.options.precision):
            loss, metrics = self.objective.critic_loss(self.model, batch.x, batch.conditions, output)
        # not loss.backward(): whatever else the loss depends on gets no gradient
        scaled = self.optimization.scaled(share(loss, self.options.accumulate))
        gradients = torch.autograd.grad(scaled, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return {name: value.detach() for name, value in {"critic_loss": loss, **metrics}.items()}

    def average(self) -> None:
        """Gradients become the means over the ranks."""
        gradients = [parameter.grad for parameter in self.module.parameters() if parameter.grad is not None]
        if ranks() > 1 and gradients:
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            all_reduce_mean(flat)
            for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(mean.view_as(gradient))
