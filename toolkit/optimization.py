"""One module under one optimizer: what a step changes and a checkpoint saves besides the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import cos, pi

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from toolkit.errors import ToolkitError
from toolkit.options import TrainerOptions

MOMENTS = {"step", "exp_avg", "exp_avg_sq"}
"""The optimizers' state of a parameter that had a gradient."""


class Optimization:
    """Optimizer, learning-rate schedule, gradient clipping and weight averages of a module.

    ``step`` counts the updates done. The schedule is a function of ``step`` and needs no state.
    """

    def __init__(self, module: nn.Module, options: TrainerOptions) -> None:
        self.module, self.options, self.step = module, options, 0
        self.parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
        cls = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[options.optimizer]
        self.optimizer = cls(
            list(self.parameters.values()),
            lr=options.learning_rate,
            betas=options.betas,
            weight_decay=options.weight_decay,
            fused=True,
        )
        self.averages = {n: p.detach().clone() for n, p in self.parameters.items()} if options.ema else {}

    @property
    def done(self) -> bool:
        return self.step >= self.options.steps

    @property
    def learning_rate(self) -> float:
        """Of the next update."""
        return self.options.learning_rate * rate(self.step, self.options)

    def update(self) -> Tensor:
        """One optimizer step from the current gradients; returns their norm, 0-d, before any clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        norm = self._clip()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.averages:
            self._average()
        return norm

    def _clip(self) -> Tensor:
        if self.options.clip:
            return nn.utils.clip_grad_norm_(self.parameters.values(), self.options.clip)
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        return nn.utils.get_total_norm(gradients)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The module with its weight averages in place of its weights, where there are any."""
        weights = {n: self.parameters[n].detach().clone() for n in self.averages}
        self._set(self.averages)
        try:
            yield
        finally:
            self._set(weights)

    def state(self) -> dict[str, Tensor]:
        """Averages and the optimizer's moments as flat named tensors."""
        tensors = {f"average.{n}": value for n, value in self.averages.items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
        return tensors

    def load(self, tensors: dict[str, Tensor], step: int) -> None:
        """The inverse of ``state``. New averages start at the weights; ToolkitError where moments do not fit."""
        self.step = step
        for name, average in self.averages.items():
            average.copy_(tensors.get(f"average.{name}", self.parameters[name].detach()))
        for key, value in tensors.items():
            group, _, path = key.partition(".")
            if group == "optimizer":
                moment, _, name = path.partition(".")
                if name not in self.parameters:
                    raise ToolkitError(f"the checkpoint's optimizer has {name}, which is not a parameter of this model")
                parameter = self.parameters[name]
                self.optimizer.state[parameter][moment] = value.to(parameter.device, copy=True)
        for name, parameter in self.parameters.items():
            moments = set(self.optimizer.state.get(parameter, {}))
            if moments and moments != MOMENTS:
                raise ToolkitError(f"the checkpoint's optimizer holds {', '.join(sorted(moments))} of {name}")

    def finite(self) -> bool:
        """Whether all weights, buffers and moments are finite; they may break in the very step whose loss was fine."""
        tensors = [*self.module.state_dict().values(), *self.state().values()]
        return bool(torch.stack([t.isfinite().all() for t in tensors]).all())

    @torch.no_grad()
    def _average(self) -> None:
        """The decay rises to ``ema`` over the first steps, so that a short run does not average in its random init."""
        decay = min(self.options.ema, (1 + self.step) / (10 + self.step))
        averages: list[Tensor] = list(self.averages.values())
        parameters: list[Tensor] = list(self.parameters.values())
        get_ema_multi_avg_fn(decay)(averages, parameters, self.step)

    @torch.no_grad()
    def _set(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.parameters[name].copy_(value)


def rate(step: int, options: TrainerOptions) -> float:
    """The factor of the learning rate at a step: linear warm-up, then constant or half a cosine to zero."""
    if step < options.warmup:
        return (step + 1) / options.warmup
    if options.schedule == "constant":
        return 1.0
    progress = (step - options.warmup) / max(1, options.steps - options.warmup)
    return 0.5 * (1 + cos(pi * min(1.0, progress)))
