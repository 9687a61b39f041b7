"""Builds a configuration's parts; the only place that knows what is offered to each kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from toolkit import registry, schema
from toolkit.autoencoder import Autoencoder, encoded_grid
from toolkit.config import PartConfig, RunConfig
from toolkit.dataset import Dataset
from toolkit.decoder import Decoder
from toolkit.encoder import Encoder
from toolkit.errors import ToolkitError
from toolkit.fit import (
    MisfitError,
    as_misfit,
    check_declared,
    check_numbers,
    check_returned,
    device_of,
    example,
    fakes,
    title,
    where_provable,
)
from toolkit.likelihood import Likelihood, check_distribution
from toolkit.logger import Logger
from toolkit.metric import Metric
from toolkit.objective import Objective
from toolkit.part import make
from toolkit.prior import Prior
from toolkit.proofs import proved
from toolkit.quantizer import Quantizer
from toolkit.runs.checkpoint import Checkpoint
from toolkit.runs.limits import no_larger
from toolkit.spec import CodeSpec, Condition, DataSpec
from toolkit.training import PriorStage, Stage


def dropped(config: RunConfig) -> list[str]:
    """A notice for each part of which a saved option no longer exists; such options are not used."""
    notices = []
    for kind in ("encoder", "quantizer", "decoder", "likelihood", "objective"):
        part: PartConfig | None = getattr(config, kind)
        if part:
            signature = schema.signature(kind, part.name)
            gone = [f"{name}={value}" for name, value in part.options.items() if not signature.option(name)]
            notices += [f"{registry.find(kind, part.name)} has no {', '.join(gone)}: ignored"] if gone else []
    return notices


def build_dataset(config: RunConfig, overrides: Mapping[str, Any] | None = None, source: Any = None) -> Dataset:
    """The dataset. ``overrides``: options that differ in one stage. ``source``: the opened run whose codes it reads."""
    return make_dataset(replace(config.dataset, options={**config.dataset.options, **(overrides or {})}), source)


def make_dataset(chosen: PartConfig, source: Any = None) -> Dataset:
    """A dataset by itself, likewise."""
    offered: dict[str, Any] = {} if source is None else {"source": source}
    return cast(Dataset, make("dataset", chosen, dataset_class=partial(registry.load, "dataset"), **offered))


def files_of(chosen: PartConfig) -> type[Dataset]:
    """The class that reads and writes files of a dataset's data."""
    own: type[Dataset] = registry.load("dataset", chosen.name)
    named = chosen.options.get(own.files_option) if own.files_option else None
    return registry.load("dataset", named) if named else own


def asks_for_source(config: RunConfig) -> bool:
    """Whether the dataset consists of another run's codes."""
    return "source" in schema.signature("dataset", config.dataset.name).given


def build_autoencoder(config: RunConfig, data: DataSpec) -> Autoencoder:
    """Quantizer, encoder, likelihood and decoder, composed and checked to fit. MisfitError where they do not."""
    quantizer: Quantizer = make("quantizer", config.quantizer, dim=config.dim)
    encoder: Encoder = make("encoder", config.encoder, data=_seen("encoder", config, data), dim=quantizer.channels)
    seen = _seen("decoder", config, data)
    grid = encoded_grid(encoder, data, quantizer)
    offered: dict[str, Any] = {
        "data": seen,
        "dim": quantizer.dim,
        "grid": grid[-seen.rank :],
        "conditions": tuple(
            _flat(c) if seen.rank < data.rank else c.resample(data.axes[0], grid[0])
            for c in chosen_conditions(config, data, "decoder")
        ),
    }
    if config.likelihood:
        likelihood: Likelihood = make("likelihood", config.likelihood, data=seen)
        proved(("likelihood", seen), (likelihood,), partial(fit_likelihood, likelihood, seen))
        offered["likelihood"] = likelihood
    decoder: Decoder = make("decoder", config.decoder, **offered)
    names = tuple(c.name for c in chosen_conditions(config, data, "decoder"))
    return Autoencoder(data, encoder, quantizer, decoder, decoder_conditions=names)


def build_objective(config: RunConfig, autoencoder: Autoencoder) -> Objective:
    conditions = chosen_conditions(config, autoencoder.data, "decoder")
    data, dim = autoencoder.data, autoencoder.quantizer.dim
    objective: Objective = make("objective", config.objective, data=data, dim=dim, conditions=conditions)
    _check_critic(objective)
    if objective.needs_posterior and not autoencoder.quantizer.has_posterior:
        raise MisfitError(
            f"{title(objective)} needs a quantizer with a posterior over codes; {title(autoencoder.quantizer)} has none"
        )
    parts = (objective, autoencoder.encoder, autoencoder.quantizer, autoencoder.decoder)
    what = ("objective", autoencoder.data, autoencoder.decoder_conditions)
    proved(what, parts, partial(fit_objective, objective, autoencoder))
    return objective


def _check_critic(objective: Objective) -> None:
    """MisfitError where an objective inside another one has a critic: it would be trained for what it works against."""
    for part in objective.modules():
        if isinstance(part, Objective) and part.critic is not None and part is not objective:
            name = title(part).removeprefix("objective.inner=")
            raise MisfitError(
                f"{title(part)} has a critic, which learns only in the outermost objective: choose objective={name},"
                f" and put the other one inside it, {title(objective).replace('=', '.inner=')}"
            )


def fit_objective(objective: Objective, autoencoder: Autoencoder) -> None:
    """BrokenPartError where its bound or its loss has another shape than their interface says."""
    x = example(autoencoder.data, autoencoder)
    with fakes(objective, autoencoder):
        try:
            bound = objective.bound(autoencoder, x, {})
            with torch.enable_grad():
                output = objective(autoencoder, x, {})
        except ToolkitError:
            raise
        except Exception:  # it may need values, or gradients in training mode, or a part fails: training will tell
            return
        for name in ("data_nats", "code_nats"):
            check_returned(objective, name, getattr(bound, name), (2,), "one number for each example")
        check_returned(objective, "a loss", output.loss, (), "the mean over the batch")
        check_numbers(objective, "terms", output.terms)


def build_prior(config: RunConfig, code_spec: CodeSpec, data: DataSpec) -> Prior:
    """The prior over a model's codes, checked to fit them."""
    if not code_spec.depth:
        raise MisfitError("a continuous bottleneck has no codes, and so no prior over them: choose stage=autoencoder")
    chosen = chosen_conditions(config, data, "prior")
    for condition in chosen:
        if condition.text and not _reads_texts("prior", config.chosen_prior()):
            reading = [
                name for name in registry.names("prior") if schema.signature("prior", name).option("conditioner")
            ]
            raise ToolkitError(
                f"conditions.prior=[{condition.name}] is a text, and prior={config.chosen_prior().name} reads none:"
                f" leave it out, or choose a prior with a conditioner ({', '.join(reading)})"
            )
        if condition.per_step:
            code_spec.refuse_parts(
                f"conditions.prior=[{condition.name}], which changes along the data",
                f"leave {condition.name} out, or choose another quantizer",
            )
    conditions = tuple(c.resample(data.axes[0], code_spec.grid[0]) for c in chosen)
    prior: Prior = make("prior", config.chosen_prior(), code_spec=code_spec, conditions=conditions)
    proved(("prior", code_spec), (prior,), partial(fit_prior, prior, code_spec))
    return prior


def _reads_texts(kind: str, part: PartConfig) -> bool:
    """Whether a part has a conditioner, or another one inside that has."""
    nested = [option for option in schema.signature(kind, part.name).options if option.nested]
    return any(
        option.nested == "conditioner"
        or _reads_texts(
            option.nested, PartConfig.read(part.options.get(option.name, {"name": option.default}), option.name, "")
        )
        for option in nested
        if option.nested
    )


def fit_prior(prior: Prior, code_spec: CodeSpec) -> None:
    """BrokenPartError where a prior's loss or log_prob of codes has another shape than its interface says."""
    with fakes(prior), as_misfit(prior, f"on codes {code_spec.shape}"):
        codes = torch.zeros(2, *code_spec.shape, dtype=torch.long)
        check_returned(prior, "a loss", prior.loss(codes, {}), (2,), "one number for each example")
        if prior.tractable:
            with where_provable(prior, f"in log_prob of codes {code_spec.shape}"):
                check_returned(prior, "a log_prob", prior.log_prob(codes, {}), (2,), "one number for each example")


def fit_likelihood(likelihood: Likelihood, data: DataSpec) -> None:
    """BrokenPartError where a likelihood gives no distribution over the data."""
    check_declared(likelihood, "likelihood", {"channels": "the channels that a decoder must give it"})
    given = (likelihood.channels, *data.axes)
    with fakes(likelihood), as_misfit(likelihood, f"on parameters {given}"):
        distribution = likelihood(torch.zeros(2, *given, device=device_of(likelihood)))
        check_distribution(likelihood, distribution, data)


def build_metrics(config: RunConfig, model: Autoencoder) -> list[Metric]:
    offered: dict[str, Any] = {"data": model.data, "code_spec": model.code_spec, "quantizer": model.quantizer}
    return [metric for _, metric in _listed("metric", config, offered)]


def build_loggers(config: RunConfig, run: Path) -> Iterator[tuple[str, Logger]]:
    """The loggers of a run's folder with their names, each built when it is asked for."""
    return _listed("logger", config, {"run": run, "config": config.values()})


def _listed(kind: str, config: RunConfig, offered: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The parts of a list, by name."""
    chosen: Mapping[str, PartConfig] = getattr(config, kind)
    return ((name, make(kind, part, f"{kind}.{name}", **offered)) for name, part in chosen.items())


def build_stage(config: RunConfig, data: DataSpec, checkpoint: Checkpoint | None) -> Stage:
    """Stage one. ToolkitError where it does not fit the checkpoint, if there is one, before its memory is allocated."""
    with _fitting(checkpoint):
        autoencoder = build_autoencoder(config, data)
        objective = build_objective(config, autoencoder)
        if objective.critic and objective.start is not None and objective.start < config.trainer.critic_start:
            raise MisfitError(
                f"{title(objective)} follows its critic from step {objective.start} on, which begins to learn at"
                f" trainer.critic_start={config.trainer.critic_start}: take objective.start of at least that"
            )
        stage = Stage(objective, autoencoder, config.trainer.freeze)
    if checkpoint is not None:
        checkpoint.check_weights(stage)
    return stage


def build_prior_stage(
    config: RunConfig, code_spec: CodeSpec, data: DataSpec, checkpoint: Checkpoint | None
) -> PriorStage:
    """Stage two, likewise."""
    with _fitting(checkpoint):
        stage = PriorStage(build_prior(config, code_spec, data))
    if checkpoint is not None:
        checkpoint.check_weights(stage)
    return stage


@contextmanager
def _fitting(checkpoint: Checkpoint | None) -> Iterator[None]:
    """To build what a checkpoint is loaded into: no larger than its weights, and with no random numbers consumed."""
    if checkpoint is None:
        yield
        return
    with torch.random.fork_rng([]), no_larger(shape.shape for shape in checkpoint.shapes().values()):
        yield


def chosen_conditions(config: RunConfig, data: DataSpec, kind: str) -> tuple[Condition, ...]:
    """The conditions that the configuration lets the decoder or the prior see."""
    known = {condition.name: condition for condition in data.conditions}
    names = config.decoder_conditions if kind == "decoder" else config.prior_conditions
    for name in names:
        if name not in known:
            have = ", ".join(known) or "none"
            raise ToolkitError(
                f"conditions.{kind}: this data has no condition {name!r}{registry.did_you_mean(name, known)}"
                f" (it has: {have})"
            )
        if kind == "decoder" and known[name].text:
            raise ToolkitError(
                f"conditions.decoder=[{name}] is a text, and no decoder reads one: leave it out; a prior reads it with"
                f" conditions.prior=[{name}]"
            )
    return tuple(known[name] for name in names)


def _seen(kind: str, config: RunConfig, data: DataSpec) -> DataSpec:
    """The data along the axes that a part models."""
    name = getattr(config, kind).name
    cls = cast(type[Encoder] | type[Decoder], registry.load(kind, name))
    rank = cls.rank
    try:
        return data.last(rank)
    except ValueError:
        raise MisfitError(
            f"{kind}={name} works on {rank} axes, dataset={config.dataset.name} has {data.rank}: {data.axes}"
        ) from None


def _flat(condition: Condition) -> Condition:
    """A condition as seen by a part that gets one step at a time."""
    return replace(condition, per_step=False)
