"""The training loop, and what it records."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Self, cast, final

import torch
from torch import Tensor, nn

from toolkit.autoencoder import Autoencoder
from toolkit.batches import Batch, TrainBatches
from toolkit.device import autocast
from toolkit.distributed import all_reduce_mean, no_sync, ranks, wrap_ddp
from toolkit.objective import Loss, Objective
from toolkit.optimization import Group, Optimization, trainable
from toolkit.options import AutoencoderTrainerOptions, TrainerOptions
from toolkit.prior import Prior
from toolkit.running_metrics import autoencoder_metrics, mean_metrics

Metrics = dict[str, Tensor]


class StepLoss(NamedTuple):
    """The loss of a batch, for a stage that reports nothing else."""

    loss: Tensor


PREFIXES = {
    "encoder": "model.encoder.",
    "quantizer": "model.quantizer.",
    "decoder": "model.decoder.",
    "objective": "objective.",
}
"""Of the parameters of each part of stage one."""
CRITIC = "objective.critic."


@final
class Stage(nn.Module):
    """Stage one: objective and autoencoder. The parts named in ``freeze`` stay as they are."""

    def __init__(self, objective: Objective, model: Autoencoder, freeze: Collection[str] = ()) -> None:
        super().__init__()
        self.objective, self.model, self._frozen = objective, model, tuple(freeze)
        for part in self._frozen:
            self._part(part).requires_grad_(False)

    def forward(self, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        return self.objective(self.model, x, conditions)

    def metrics(self, output: Loss, x: Tensor) -> Metrics:
        return autoencoder_metrics(output, x, self.model.data, self.model.code_spec)

    def train(self, mode: bool = True) -> Self:
        """Frozen parts stay in eval mode: no codebook of theirs moves."""
        super().train(mode)
        for part in self._frozen:
            self._part(part).eval()
        return self

    def groups(self, options: AutoencoderTrainerOptions) -> list[Group]:
        """What is trained with which learning rate: all but the critic, and the critic."""
        parameters = trainable(self)
        critic = {name: p for name, p in parameters.items() if name.startswith(CRITIC)}
        rest = {name: p for name, p in parameters.items() if name not in critic}
        factors = {PREFIXES[part]: factor for part, factor in options.learning_rate_factors.items()}
        groups = [Group(rest, options.learning_rate, options.betas, options.clip, factors)]
        if critic:
            learning_rate, betas = options.critic_learning_rate, options.critic_betas
            groups.append(
                Group(
                    critic,
                    learning_rate or options.learning_rate,
                    betas or options.betas,
                    options.critic_clip,
                    prefix="critic_",
                    averaged=False,
                )
            )
        return [group for group in groups if group.parameters]

    def _part(self, name: str) -> nn.Module:
        return self.get_submodule(PREFIXES[name].removesuffix("."))


@final
class PriorStage(nn.Module):
    """Stage two: a prior, and codes in place of data."""

    def __init__(self, model: Prior) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, conditions: Mapping[str, Tensor]) -> StepLoss:
        return StepLoss(self.model.loss(x, conditions).mean())

    def metrics(self, output: StepLoss, x: Tensor) -> Metrics:
        return {"loss": output.loss.detach()}


def train_steps(stage: Stage | PriorStage, batches: TrainBatches, optimization: Optimization) -> Iterator[Metrics]:
    """Updates until all steps are done; yields the metrics of each."""
    options = optimization.options
    critic = _Critic.of(stage, optimization)
    adversary = critic.module if critic else None
    with frozen(adversary):
        forward = _wrapped(stage, options)
    stage.train()
    while not optimization.done:
        parts = []
        for number in range(options.accumulate):
            batch = next(batches)
            optimization.intact = False
            with no_sync(forward, number + 1 < options.accumulate), frozen(adversary):
                with autocast(batches.device, options.precision):
                    output = forward(batch.x, batch.conditions)
                (output.loss / options.accumulate).backward()
            parts.append(stage.metrics(output, batch.x))
            if critic:
                parts[-1]["critic_loss"] = critic.learn(cast(Loss, output), batch)
            del output, batch  # frees their memory for the next pass
        if critic:
            critic.average()
        norms = optimization.update()
        yield {**mean_metrics(parts), **norms}


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


@dataclass(frozen=True)
class _Critic:
    """The critic of stage one's objective, and how it gets its gradients."""

    stage: Stage
    module: nn.Module
    optimization: Optimization
    options: AutoencoderTrainerOptions

    @classmethod
    def of(cls, stage: Stage | PriorStage, optimization: Optimization) -> _Critic | None:
        """The stage's, where it has one that is trained."""
        module, options = getattr(getattr(stage, "objective", None), "critic", None), optimization.options
        if module is None or not trainable(module) or not isinstance(options, AutoencoderTrainerOptions):
            return None
        return cls(cast(Stage, stage), module, optimization, options)

    def learn(self, output: Loss, batch: Batch) -> Tensor:
        """Adds the gradients of a batch, from the first step on; returns the loss, 0-d, 0 before."""
        if self.optimization.step < self.options.critic_start:
            return output.loss.detach().new_zeros(())
        stage, parameters = self.stage, list(trainable(self.module).values())
        with autocast(batch.x.device, self.options.precision):
            loss: Tensor = stage.objective.critic_loss(stage.model, batch.x, batch.conditions, output)
        # not loss.backward(): whatever else the loss depends on gets no gradient
        gradients = torch.autograd.grad(loss / self.options.accumulate, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return loss.detach()

    def average(self) -> None:
        """Gradients become the means over the ranks."""
        gradients = [parameter.grad for parameter in self.module.parameters() if parameter.grad is not None]
        if ranks() > 1 and gradients:
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            all_reduce_mean(flat)
            for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(mean.view_as(gradient))


def _wrapped(stage: nn.Module, options: TrainerOptions) -> nn.Module:
    """The stage as the loop calls it: compiled where asked for, gradients averaged over the ranks."""
    if not options.compile:
        return wrap_ddp(stage)
    if ranks() > 1 and isinstance(stage, Stage):
        # Each rank compiles by itself: the collectives could end up in another order on each, and deadlock.
        quantizer = stage.model.quantizer
        quantizer.forward = torch.compiler.disable(quantizer.forward)  # type: ignore[method-assign]
    return wrap_ddp(cast(nn.Module, torch.compile(stage)))
