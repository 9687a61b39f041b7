"""A plain configuration to objects: the only place that knows what is offered to whom.

A configuration is what composing leaves: nested dicts of lists, numbers and strings, each part as
``{"name": …, option: …}``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from toolkit import registry, schema
from toolkit.autoencoder import Autoencoder, encoded_grid
from toolkit.blame import blame
from toolkit.dataset import Dataset
from toolkit.decoder import Decoder
from toolkit.encoder import Encoder
from toolkit.errors import ToolkitError
from toolkit.fit import Broken, Misfit, as_misfit, fakes, label, title
from toolkit.likelihood import Likelihood
from toolkit.metric import Metric
from toolkit.objective import Objective
from toolkit.options import TRAINERS, TrainerOptions
from toolkit.prior import Prior
from toolkit.quantizer import Quantizer
from toolkit.spec import Condition, DataSpec, LatentSpec

Config = Mapping[str, Any]

MADE_OF = {"quantizer": ("dim",)}
"""By kind, what the maker of a nested part is called with; the rest is offered to it as to its outer part."""


def make(kind: str, node: Config, where: str | None = None, /, **offered: Any) -> Any:
    """One part from its node, given what it asks for of what is offered to its kind.

    ToolkitError where it asks for something else, or its constructor refuses a value.
    """
    name, where = node["name"], where or kind
    cls = registry.load(kind, name)
    signature = schema.signature(kind, name)
    for wanted in signature.given:
        if wanted not in offered:
            raise ToolkitError(_not_offered(kind, name, wanted, offered))
    options = {option.name: _value(option, node, where, offered) for option in signature.options if option.name in node}
    try:
        part = cls(**{wanted: offered[wanted] for wanted in signature.given}, **options)
    except ValueError as e:
        raise ToolkitError(f"{where}={name}: {e}") from e
    except ToolkitError:
        raise
    except Exception as e:  # a part that breaks on its options; which, only the part's author knows
        raise ToolkitError(f"{where}={name} cannot be made with these options: {blame(e)}") from e
    if isinstance(part, nn.Module):
        label(part, f"{where}={name}", _package(kind, name))
    return part


def check_parts(config: Config, where: Path, *required: str) -> None:
    """ToolkitError where a saved configuration is not made of parts by name, or lacks one of the ``required``."""
    named = {kind: config.get(kind) for kind in registry.KINDS if kind != "metric" and config.get(kind) is not None}
    named = {**dict.fromkeys(required), **named}
    metrics = config.get("metric") or {}
    for kind, node in [*named.items(), *(metrics.items() if isinstance(metrics, Mapping) else [("metric", metrics)])]:
        if not (isinstance(node, Mapping) and isinstance(node.get("name"), str)):
            raise ToolkitError(f"{where}: {kind} is no part with a name")
    seen = config.get("conditions")
    lists = [seen.get(kind) for kind in ("decoder", "prior")] if isinstance(seen, Mapping) else [None]
    if not all(isinstance(each, list) and all(isinstance(name, str) for name in each) for each in lists):
        raise ToolkitError(f"{where}: conditions names none for the decoder or the prior")
    if type(config.get("dim")) is not int or config["dim"] < 1:
        raise ToolkitError(f"{where}: dim={config.get('dim')!r}: at least 1")


def dropped(config: Config) -> list[str]:
    """A notice for each part of which a saved option no longer exists; such options are not used."""
    notices = []
    for kind in ("encoder", "quantizer", "decoder", "likelihood", "objective"):
        node = config.get(kind)
        if node:
            found = schema.signature(kind, node["name"])
            gone = [f"{name}={value}" for name, value in node.items() if name != "name" and not found.option(name)]
            notices += [f"{registry.find(kind, node['name'])} has no {', '.join(gone)}: ignored"] if gone else []
    return notices


def build_dataset(config: Config, overrides: Config | None = None, source: Any = None) -> Dataset:
    """The dataset; ``overrides`` are options that one stage reads otherwise, ``source`` an opened run, where the
    dataset is of its codes."""
    offered = {} if source is None else {"source": source}
    return cast(Dataset, make("dataset", {**config["dataset"], **(overrides or {})}, **offered))


def asks_for_source(config: Config) -> bool:
    """Whether the dataset is of another run's codes."""
    return "source" in schema.signature("dataset", config["dataset"]["name"]).given


def build_autoencoder(config: Config, data: DataSpec) -> Autoencoder:
    """Quantizer, encoder, likelihood and decoder, composed and proved to fit. Misfit where they do not."""
    quantizer: Quantizer = make("quantizer", config["quantizer"], dim=config["dim"])
    encoder: Encoder = make("encoder", config["encoder"], data=_seen("encoder", config, data), dim=quantizer.channels)
    seen = _seen("decoder", config, data)
    grid = encoded_grid(encoder, data, quantizer)
    offered: dict[str, Any] = {
        "data": seen,
        "dim": quantizer.dim,
        "grid": grid[-seen.rank :],
        "conditions": tuple(
            _flat(c) if seen.rank < data.rank else c.along(data.axes[0], grid[0])
            for c in chosen_conditions(config, data, "decoder")
        ),
    }
    if config.get("likelihood"):
        likelihood: Likelihood = make("likelihood", config["likelihood"], data=seen)
        offered["likelihood"] = likelihood
    decoder: Decoder = make("decoder", config["decoder"], **offered)
    names = tuple(c.name for c in chosen_conditions(config, data, "decoder"))
    return Autoencoder(data, encoder, quantizer, decoder, decoder_conditions=names)


def build_objective(config: Config, autoencoder: Autoencoder) -> Objective:
    objective: Objective = make("objective", config["objective"], data=autoencoder.data)
    if objective.needs_posterior and not autoencoder.quantizer.has_posterior:
        raise Misfit(
            f"{title(objective)} needs a quantizer with a posterior over codes; {title(autoencoder.quantizer)} has none"
        )
    return objective


def build_prior(config: Config, latent: LatentSpec, data: DataSpec) -> Prior:
    """The prior over a model's codes, proved to fit them."""
    if not latent.depth:
        raise Misfit("a continuous bottleneck has no codes, and so no prior over them: choose stage=autoencoder")
    conditions = tuple(c.along(data.axes[0], latent.grid[0]) for c in chosen_conditions(config, data, "prior"))
    prior: Prior = make("prior", config["prior"], latent=latent, conditions=conditions)
    with fakes(prior), as_misfit(prior, f"on codes {latent.shape}"):
        nats = prior.loss(torch.zeros(2, *latent.shape, dtype=torch.long), {})
    if tuple(nats.shape) != (2,):
        raise Broken(prior, f"gives two examples a loss of shape {tuple(nats.shape)}, not (2,)")
    return prior


def build_metrics(config: Config, model: Autoencoder) -> list[Metric]:
    offered: dict[str, Any] = {"data": model.data, "latent": model.latent, "quantizer": model.quantizer}
    return [make("metric", node, f"metric.{name}", **offered) for name, node in config.get("metric", {}).items()]


def build_options(config: Config, trainer: str) -> TrainerOptions:
    """A trainer's options, with lists turned into the tuples that they stand for."""
    known = {option.name: option for option in schema.fields(TRAINERS[trainer])}
    return TRAINERS[trainer](**{name: known[name].convert(value, name) for name, value in config[trainer].items()})


def chosen_conditions(config: Config, data: DataSpec, kind: str) -> tuple[Condition, ...]:
    """The conditions that the configuration lets the decoder or the prior see."""
    known = {condition.name: condition for condition in data.conditions}
    for name in config["conditions"][kind]:
        if name not in known:
            have = ", ".join(known) or "none"
            raise ToolkitError(
                f"conditions.{kind}: this data has no condition {name!r}{registry.did_you_mean(name, known)}"
                f" (it has: {have})"
            )
    return tuple(known[name] for name in config["conditions"][kind])


def _package(kind: str, name: str) -> str:
    """Whose a part is, for what it may do wrong; the core's own names say enough."""
    found = registry.find(kind, name)
    return "" if found.distribution == registry.CORE else f"{found.distribution} {found.version}"


def _value(option: schema.Option, node: Config, where: str, offered: Config) -> Any:
    value, key = node[option.name], f"{where}.{option.name}"
    if option.nested:
        kind: str = option.nested
        return _maker(kind, value, key, offered)
    return option.convert(value, key)


def _maker(kind: str, node: Config, where: str, offered: Config) -> Callable[..., Any]:
    """A nested part is a maker: its outer part may want several, each with a state of its own."""
    names = MADE_OF.get(kind, ())
    return lambda *given: make(kind, node, where, **{**offered, **dict(zip(names, given, strict=True))})


def _seen(kind: str, config: Config, data: DataSpec) -> DataSpec:
    """The data along the axes that a part works on."""
    cls = cast(type[Encoder] | type[Decoder], registry.load(kind, config[kind]["name"]))
    rank = cls.rank
    try:
        return data.last(rank)
    except ValueError:
        raise Misfit(
            f"{kind}={config[kind]['name']} works on {rank} axes, dataset={config['dataset']['name']} has {data.rank}:"
            f" {data.axes}"
        ) from None


def _flat(condition: Condition) -> Condition:
    """A condition as a part sees it that is shown one step at a time."""
    return replace(condition, per_step=False)


def _not_offered(kind: str, name: str, wanted: str, offered: Config) -> str:
    if wanted == "likelihood":
        have = ", ".join(registry.names("likelihood"))
        return f"{kind}={name} asks for a likelihood: choose likelihood=NAME ({have})"
    return f"{kind}={name} asks for {wanted!r}, which is not offered to a {kind} (offered: {', '.join(offered)})"
