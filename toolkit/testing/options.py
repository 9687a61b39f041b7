"""Numbers that an option might be given, and a model that is tried with them."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf, isfinite, nan
from typing import Any, Union, get_args, get_origin

import torch

from toolkit.build import (
    build_autoencoder,
    build_dataset,
    build_metrics,
    build_objective,
    build_prior,
)
from toolkit.config import PartConfig, RunConfig
from toolkit.dataset import collate
from toolkit.errors import ToolkitError
from toolkit.registry import HOSTS, LISTS, Registration
from toolkit.schema import Option
from toolkit.training import Stage

HUGE = 1 << 62
"""A count that no part may begin to allocate: its type must refuse it."""
EXAMPLES = 2


def tried(option: Option) -> Iterator[tuple[Any, float]]:
    """Values of an option with one number replaced, and that number; none for an option without numbers."""
    kind = _number_in(option.type)
    if kind and not option.required:
        for number in (-1.0, 0.0, nan, inf, 1e30) if kind is float else (-1, 0, HUGE):
            yield _with(option.default, number, option.type), number


def with_option(config: RunConfig, component: Registration, name: str, value: Any) -> RunConfig:
    """The configuration with one option of a component changed."""
    kind = component.kind
    if kind in HOSTS:
        return _with_inner(config, component, name, value)
    part: PartConfig = getattr(config, kind)[component.name] if kind in LISTS else getattr(config, kind)
    changed = PartConfig(part.name, {**part.options, name: value})
    fields: dict[str, Any] = {kind: {component.name: changed} if kind in LISTS else changed}
    return replace(config, **fields)


def _with_inner(config: RunConfig, component: Registration, name: str, value: Any) -> RunConfig:
    """The same for a component inside another one."""
    host = HOSTS[component.kind][0]
    part: PartConfig = getattr(config, host)
    inner = {**part.options[component.kind], name: value}
    changed: dict[str, Any] = {host: PartConfig(part.name, {**part.options, component.kind: inner})}
    return replace(config, **changed)


def outcome(config: RunConfig) -> tuple[str, list[str]]:
    """Why a model is refused, or what of ``not_finite`` is wrong with it."""
    wrong: list[str] = []
    return refusal(lambda: wrong.extend(not_finite(config))), wrong


def not_finite(config: RunConfig) -> list[str]:
    """Which results of one forward pass in training, and of what follows on it, are NaN or infinite."""
    dataset = build_dataset(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_autoencoder(config, dataset.spec)
        objective = build_objective(config, model)
        batch = collate(dataset, "train", range(min(EXAMPLES, dataset.size("train"))), None)
        x = batch.pop("x")
        output = Stage(objective, model).train()(x, batch)
        results = {"loss": output.loss, **output.terms}
        with torch.no_grad():
            bound = objective.eval().bound(model.eval(), x, batch)
        results |= {"data_nats": bound.data_nats, "code_nats": bound.code_nats}
        if config.prior and model.code_spec.depth:
            results["prior's loss"] = build_prior(config, model.code_spec, dataset.spec).loss(
                bound.quantized.codes, batch
            )
        wrong = [name for name, value in results.items() if not bool(value.detach().isfinite().all())]
        for metric in build_metrics(config, model):
            for add in (metric.fit, metric.update) if metric.fitted else (metric.update,):
                add(x, bound, batch)
            wrong += [name for name, figure in metric.compute().items() if not isfinite(figure)]
    return wrong


def refusal(call: Callable[[], object]) -> str:
    """The message of the ToolkitError that a call raises; empty where it raises none."""
    try:
        call()
    except ToolkitError as error:
        return str(error)
    return ""


def _number_in(wanted: Any) -> type | None:
    if wanted in (int, float):
        return wanted  # type: ignore[no-any-return]
    return next((found for part in get_args(wanted) if (found := _number_in(part))), None)


def _with(default: Any, number: float, wanted: Any) -> Any:
    """The default with its first number replaced, or the shortest value of its type where it has none."""
    if get_origin(wanted) in (Union, types.UnionType):
        wanted = next(part for part in get_args(wanted) if part is not types.NoneType)
    origin, parts = get_origin(wanted), get_args(wanted)
    if origin is dict:
        return {**(default or {}), next(iter(default or {parts[0]("1"): 0})): number}
    if origin in (list, tuple):
        first, *others = default or [None]
        return [_with(first, number, parts[0]), *others]
    return number
