"""One module under one optimizer: what a step changes and a checkpoint saves besides the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from math import cos, pi
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from toolkit.device import resolve_precision
from toolkit.distributed import gathering
from toolkit.errors import ToolkitError
from toolkit.loss_scale import LossScale
from toolkit.muon import Muon
from toolkit.options import TrainerOptions
from toolkit.sharding import is_shard, local, shard_like, whole

ADAM, MOMENTUM = {"step", "exp_avg", "exp_avg_sq"}, {"momentum_buffer"}
"""The optimizers' state of a parameter that had a gradient."""


@dataclass(frozen=True)
class Group:
    """Parameters whose gradients are clipped together, under learning rate and betas of their own."""

    parameters: Mapping[str, nn.Parameter]
    learning_rate: float
    betas: tuple[float, float]
    clip: float
    factors: Mapping[str, float] = field(default_factory=dict)
    """What the learning rate is multiplied by, by the beginning of parameters' names."""
    prefix: str = ""
    """Of the names of its metrics."""
    averaged: bool = True
    """Whether its weights' moving averages are kept, where there are any."""

    def by_rate(self) -> dict[float, dict[str, nn.Parameter]]:
        """Its parameters by their learning rate."""
        rates: dict[float, dict[str, nn.Parameter]] = {}
        for name, parameter in self.parameters.items():
            factor = next((factor for start, factor in self.factors.items() if name.startswith(start)), 1.0)
            rates.setdefault(self.learning_rate * factor, {})[name] = parameter
        return rates


class Optimization:
    """Optimizer, learning-rate schedule, gradient clipping and weight averages of a module.

    ``step`` counts the updates done. The schedule is a function of ``step`` and needs no state. Every part of the
    module that has ``at_step(step)`` is told it: after each update, and when a checkpoint is loaded.

    ``intact``: whether the module is just as ``step`` updates left it. It is not from the first pass of a step until
    its update, and not while the averages are in the weights' place.
    """

    def __init__(self, module: nn.Module, options: TrainerOptions, groups: Sequence[Group] = ()) -> None:
        """``groups``: by default one, of all parameters that require a gradient."""
        self.module, self.options, self.step, self.intact = module, options, 0, True
        self.groups = list(groups) or [Group(trainable(module), options.learning_rate, options.betas, options.clip)]
        self.parameters = {name: p for group in self.groups for name, p in group.parameters.items()}
        if options.steps and not self.parameters:
            raise ToolkitError(f"steps={options.steps}: there is nothing to train; take steps=0")
        self.optimizers = _optimizers(module, options, self.groups)
        self.loss_scale = _loss_scale(self.parameters, options)
        if self.loss_scale and options.optimizer == "sgd" and options.betas[0]:
            # it leaves them unwritten where its first step is skipped; from zeros that step gives the same
            for name, parameter in self.parameters.items():
                self._moments(name)["momentum_buffer"] = torch.zeros_like(parameter)
        kept = [group.parameters for group in self.groups if group.averaged and options.ema]
        self.averages = {n: p.detach().clone() for parameters in kept for n, p in parameters.items()}
        self.informed = [part for part in module.modules() if callable(getattr(part, "at_step", None))]

    @property
    def done(self) -> bool:
        return self.step >= self.options.steps

    @property
    def learning_rate(self) -> float:
        """Of the next update, without any part's factor."""
        return self.options.learning_rate * rate(self.step, self.options)

    def update(self) -> dict[str, Tensor]:
        """One optimizer step from the current gradients; returns their norms before any clipping, 0-d, by name."""
        self.schedule()
        norms = self.apply()
        self.conclude()
        return norms

    def scaled(self, loss: Tensor) -> Tensor:
        """A loss as its gradients are taken of it: larger in float16, and ``apply`` divides them again."""
        return self.loss_scale(loss) if self.loss_scale else loss

    def schedule(self) -> None:
        """Sets the learning rates to those of the step at hand."""
        scale = rate(self.step, self.options)
        for optimizer in self.optimizers:
            for rows in optimizer.param_groups:
                if isinstance(rows["lr"], Tensor):
                    rows["lr"].fill_(rows["peak"] * scale)
                else:
                    rows["lr"] = rows["peak"] * scale

    def apply(self) -> dict[str, Tensor]:
        """Clips the gradients, changes the weights by them and drops them; returns the norms as ``update`` does.

        Operations on tensors at fixed addresses alone, so that it can be captured.
        """
        if self.loss_scale:
            self.loss_scale.unscale([p.grad for p in self.parameters.values() if p.grad is not None])
        norms = {f"{group.prefix}grad_norm": _clipped(group) for group in self.groups}
        if self.loss_scale:
            norms = self.loss_scale.judge(norms, self.optimizers)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return norms

    def conclude(self) -> None:
        """Counts the step, moves the averages on and tells the parts."""
        self.step += 1
        if self.averages:
            self._average()
        self._tell()
        self.intact = True

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The module with its weight averages in place of its weights, where there are any."""
        weights = {n: self.parameters[n].detach().clone() for n in self.averages}
        self.intact = False
        self._write(self.averages, self.parameters)
        try:
            yield
        finally:
            self._write(weights, self.parameters)
            self.intact = True

    def state(self) -> dict[str, Tensor]:
        """Averages, the optimizer's moments and float16's scale of the loss as flat named tensors.

        Of a sharded module these are shards, but for single numbers.
        """
        tensors = {f"average.{n}": value for n, value in self.averages.items()}
        if self.loss_scale:
            tensors |= {f"loss_scale.{name}": value for name, value in self.loss_scale.state().items()}
        for name in self.parameters:
            for key, value in self._moments(name).items():
                tensors[f"optimizer.{key}.{name}"] = value
        return tensors

    def load(self, tensors: dict[str, Tensor], step: int) -> None:
        """The inverse of ``state``; of a sharded module tensors may be whole. New averages start at the weights;
        ToolkitError where moments do not fit.

        A parameter that was trained and is frozen now needs neither moments nor an average, and stays what it was to
        whoever opened the run: its average, where it had one.
        """
        self.step = step
        frozen = {name: p for name, p in self.module.named_parameters() if name not in self.parameters}
        self._write({name: tensors[f"average.{name}"] for name in frozen if f"average.{name}" in tensors}, frozen)
        for name, average in self.averages.items():
            average.copy_(shard_like(tensors.get(f"average.{name}", self.parameters[name].detach()), average))
        for name, own in self.loss_scale.state().items() if self.loss_scale else ():
            own.copy_(tensors.get(f"loss_scale.{name}", own))
        for key, value in tensors.items():
            group, _, path = key.partition(".")
            if group == "optimizer":
                moment, _, name = path.partition(".")
                if name in frozen:
                    continue
                if name not in self.parameters:
                    raise ToolkitError(f"the checkpoint's optimizer has {name}, which is not a parameter of this model")
                like = self.parameters[name]
                self._moments(name)[moment] = shard_like(
                    value.to(like.device, copy=True), like if value.dim() else None
                )
        for name in self.parameters:
            moments = set(self._moments(name))
            if moments and moments != (MOMENTUM if self._with_momentum(name) else ADAM):
                raise ToolkitError(f"the checkpoint's optimizer holds {', '.join(sorted(moments))} of {name}")
        self._tell()

    def finite(self) -> bool:
        """Whether all weights, buffers and moments are finite; they may break in the very step whose loss was fine.

        Of what is sharded this rank's shards.
        """
        tensors = [*self.module.state_dict().values(), *self.state().values()]
        return bool(torch.stack([local(t).isfinite().all() for t in tensors]).all())

    def _tell(self) -> None:
        for part in self.informed:
            part.at_step(self.step)  # type: ignore[operator]

    def _moments(self, name: str) -> dict[str, Tensor]:
        """What the optimizer keeps of a parameter, to read and to change."""
        moments: dict[str, Tensor] = self._optimizer(name).state[self.parameters[name]]
        return moments

    def _with_momentum(self, name: str) -> bool:
        return isinstance(self._optimizer(name), torch.optim.SGD | Muon)

    def _optimizer(self, name: str) -> torch.optim.Optimizer:
        return next(o for o in self.optimizers if any(name in rows["names"] for rows in o.param_groups))

    @torch.no_grad()
    def _average(self) -> None:
        """The decay rises to ``ema`` over the first steps, so that a short run does not average in its random init."""
        decay = min(self.options.ema, (1 + self.step) / (10 + self.step))
        averages: list[Tensor] = list(self.averages.values())
        parameters: list[Tensor] = [self.parameters[name] for name in self.averages]
        get_ema_multi_avg_fn(decay)(averages, parameters, self.step)

    @staticmethod
    @torch.no_grad()
    def _write(values: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> None:
        for name, value in values.items():
            parameters[name].copy_(value)


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """A module's parameters that require a gradient, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def rate(step: int, options: TrainerOptions) -> float:
    """The factor of the learning rate at a step: linear warm-up, then constant, half a cosine, or a line."""
    if step < options.warmup:
        return (step + 1) / options.warmup
    if options.schedule == "constant":
        return 1.0
    progress = min(1.0, (step - options.warmup) / max(1, options.steps - options.warmup))
    falling = 1 - progress if options.schedule == "linear" else 0.5 * (1 + cos(pi * progress))
    return options.floor + (1 - options.floor) * falling


def check_precision(options: TrainerOptions, trainer: str = "") -> None:
    """ToolkitError for float16 with an optimizer that cannot skip a step; ``trainer`` is where the options stand."""
    if options.precision == "fp16" and options.optimizer == "muon":
        raise ToolkitError(
            f"{trainer}precision=fp16 with optimizer=muon: choose adam, adamw or sgd, or precision=bf16 or fp32"
        )


def _loss_scale(parameters: Mapping[str, nn.Parameter], options: TrainerOptions) -> LossScale | None:
    """What float16 needs; None for wider numbers. ToolkitError as of ``check_precision``."""
    check_precision(options)
    device = next((parameter.device for parameter in parameters.values()), torch.device("cpu"))
    return LossScale(device) if resolve_precision(options.precision, device) == "fp16" else None


def _optimizers(module: nn.Module, options: TrainerOptions, groups: Sequence[Group]) -> list[torch.optim.Optimizer]:
    """One optimizer, or two where muon leaves some parameters to adamw."""
    linear = {f"{name}.weight" for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    matrices = linear if options.optimizer == "muon" else set[str]()
    others = [rows for group in groups for rows in _param_groups(group, options, matrices, without=True)]
    optimizers = [_OPTIMIZERS[options.optimizer](others, options)] if others else []
    for_muon = [rows for group in groups for rows in _param_groups(group, options, matrices, without=False)]
    return [*optimizers, Muon(for_muon)] if for_muon else optimizers


_OPTIMIZERS: dict[str, Callable[[Any, TrainerOptions], torch.optim.Optimizer]] = {
    "adam": lambda rows, options: torch.optim.Adam(rows, fused=True, capturable=options.graph),
    "adamw": lambda rows, options: torch.optim.AdamW(rows, fused=True, capturable=options.graph),
    "sgd": lambda rows, options: torch.optim.SGD(rows, fused=not _are_shards(rows)),  # torch has none for shards
    "muon": lambda rows, options: torch.optim.AdamW(rows, fused=True),  # of what muon itself is not for
}


def _are_shards(rows: Any) -> bool:
    return any(is_shard(parameter) for group in rows for parameter in group["params"])


def _param_groups(
    group: Group, options: TrainerOptions, matrices: set[str], without: bool
) -> Iterator[dict[str, object]]:
    """torch's: a group's parameters by learning rate, those that are among the matrices or those that are not."""
    momentum = options.optimizer == "sgd" or not without
    moments = {"momentum": group.betas[0]} if momentum else {"betas": group.betas}
    for peak, parameters in group.by_rate().items():
        some = {name: p for name, p in parameters.items() if (name in matrices) != without}
        if some:
            rows = {
                "params": list(some.values()),
                "names": set(some),
                "peak": peak,
                "lr": _rate_of(peak, some, without),
            }
            yield {**rows, **moments, "weight_decay": options.weight_decay}


def _rate_of(peak: float, parameters: Mapping[str, nn.Parameter], fused: bool) -> float | Tensor:
    """A learning rate as its optimizer reads it: on a GPU from a tensor at a fixed address, so that a graph can."""
    device = next(iter(parameters.values())).device
    return torch.full((), peak, device=device) if fused and device.type == "cuda" else peak


def _clipped(group: Group) -> Tensor:
    """The norm of a group's gradients, 0-d, which are then clipped; 0 where there are none."""
    parameters = list(group.parameters.values())
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros((), device=parameters[0].device)
    with gathering() if any(map(is_shard, parameters)) else nullcontext():  # norms of shards are summed over the ranks
        norm = nn.utils.clip_grad_norm_(parameters, group.clip) if group.clip else nn.utils.get_total_norm(gradients)
        return whole(norm)
