"""A run's configuration as one frozen object, built once; code that needs a piece of it takes that piece."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar, cast

from toolkit import schema
from toolkit.errors import ToolkitError
from toolkit.options import OPTIONAL, AutoencoderTrainerOptions, PriorTrainerOptions, RunOptions
from toolkit.registry import KINDS, LISTS, REQUIRED

Options = TypeVar("Options")


@dataclass(frozen=True)
class PartConfig:
    """A part by name, with its options as YAML holds them: one that is itself a part is a mapping with ``name``."""

    name: str
    options: Mapping[str, Any]

    @classmethod
    def read(cls, values: Any, kind: str, source: object) -> PartConfig:
        """ToolkitError where the values are not a mapping with a name."""
        if not (isinstance(values, Mapping) and isinstance(values.get("name"), str)):
            raise ToolkitError(f"{source}: {kind} is not a part with a name")
        return cls(values["name"], {key: value for key, value in values.items() if key != "name"})

    def values(self) -> dict[str, Any]:
        """The same as plain values."""
        return {"name": self.name, **self.options}


@dataclass(frozen=True)
class Experiment:
    """The experiment that a run began with, and what the run has otherwise."""

    name: str
    instead_of: Mapping[str, Any]
    """By keys such as ``trainer.steps``, the experiment's own values; a part stands there by its name."""
    of: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    """By key, the values of the run that this is known of; it is not saved."""

    @classmethod
    def read(cls, values: Any, source: object) -> Experiment | None:
        """ToolkitError where the values are not of this form; None where there are none."""
        if values is None:
            return None
        name, own = (values.get(key) if isinstance(values, Mapping) else None for key in ("name", "instead_of"))
        if not (isinstance(name, str) and isinstance(own, Mapping)):
            raise ToolkitError(f"{source}: experiment is not a name with the values that it has instead_of the run's")
        return cls(name, {str(key): value for key, value in own.items()})

    def values(self) -> dict[str, Any]:
        """The same as plain values."""
        return {"name": self.name, "instead_of": dict(self.instead_of)}


@dataclass(frozen=True, kw_only=True)
class RunConfig(RunOptions):
    """What defines a run: its parts by kind, which of them see which conditions, and how both stages are trained."""

    dataset: PartConfig
    encoder: PartConfig
    quantizer: PartConfig
    decoder: PartConfig
    likelihood: PartConfig | None = None
    objective: PartConfig
    prior: PartConfig | None = None
    metric: Mapping[str, PartConfig]
    logger: Mapping[str, PartConfig] = field(default_factory=dict)
    decoder_conditions: tuple[str, ...] = ()
    prior_conditions: tuple[str, ...] = ()
    trainer: AutoencoderTrainerOptions
    prior_trainer: PriorTrainerOptions
    prior_dataset: Mapping[str, Any]
    """Options of the dataset that differ in the prior's stage."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What is the user's own: plain values that no part of the core reads, and loggers and commands may."""
    experiment: Experiment | None = field(default=None, compare=False)
    """What it was composed from; it changes nothing, and two that differ in it alone are equal."""

    @classmethod
    def read(cls, values: Mapping[str, Any], source: object = "the configuration") -> RunConfig:
        """From plain values, as YAML holds them; ``source`` is named in errors.

        Options of the trainers that do not exist are left out, and those that are absent have their defaults: a saved
        run may be older than they are. ToolkitError where a part, a list of conditions or a value is missing or wrong.
        """
        chosen = {kind: values.get(kind) for kind in KINDS if kind not in LISTS}
        parts = {
            kind: PartConfig.read(part, kind, source)
            for kind, part in chosen.items()
            if part is not None or kind in REQUIRED
        }
        lists = {kind: _list(values.get(kind), kind, source) for kind in LISTS}
        conditions = _mapping(values.get("conditions"), "conditions", source)
        config = cls(
            **_fields(RunOptions, values, "", source),
            **cast(dict[str, Any], parts),
            **cast(dict[str, Any], lists),
            decoder_conditions=_names(conditions.get("decoder"), "decoder", source),
            prior_conditions=_names(conditions.get("prior"), "prior", source),
            trainer=_options(AutoencoderTrainerOptions, values.get("trainer"), "trainer", source),
            prior_trainer=_options(PriorTrainerOptions, values.get("prior_trainer"), "prior_trainer", source),
            prior_dataset=_mapping(values.get("prior_dataset"), "prior_dataset", source),
            extra=_mapping(values.get("extra"), "extra", source),
            experiment=Experiment.read(values.get("experiment"), source),
        )
        known = config.experiment
        return replace(config, experiment=replace(known, of=config._by_key())) if known else config

    def values(self) -> dict[str, Any]:
        """The same as plain values, in a fixed order: what ``config.yaml`` holds."""
        parts = {kind: getattr(self, kind) for kind in KINDS}
        for kind in LISTS:
            parts[kind] = {name: part.values() for name, part in parts[kind].items()}
        if not self.logger:
            del parts["logger"]  # most runs have none: their file is the same as before there were any
        own = {option.name: _value(getattr(self, option.name)) for option in schema.fields(RunOptions)}
        return {
            **{name: value for name, value in own.items() if value or name not in OPTIONAL},
            **{kind: part.values() if isinstance(part, PartConfig) else part for kind, part in parts.items()},
            "conditions": {"decoder": list(self.decoder_conditions), "prior": list(self.prior_conditions)},
            "trainer": _plain(self.trainer),
            "prior_trainer": _plain(self.prior_trainer),
            "prior_dataset": dict(self.prior_dataset),
            **({"extra": dict(self.extra)} if self.extra else {}),
            **({"experiment": self.experiment.values()} if self.experiment else {}),
        }

    def noted(self) -> RunConfig:
        """The same, whose experiment has what was changed since it was read, as by ``dataclasses.replace``."""
        known = self.experiment
        if known is None or known.of is None:
            return self
        now, own = self._by_key(), known.instead_of
        changed = {key: value for key, value in instead_of(known.of, now).items() if not within(key, own)}
        kept = {key: value for key, value in own.items() if now.get(key) != value and not within(key, changed)}
        return replace(self, experiment=replace(known, instead_of=changed | kept, of=now))

    def _by_key(self) -> dict[str, Any]:
        return by_key({key: value for key, value in self.values().items() if key != "experiment"})

    def chosen_prior(self) -> PartConfig:
        """The prior; ToolkitError where none is chosen."""
        if self.prior is None:
            raise ToolkitError("no prior is chosen: add prior=NAME")
        return self.prior


def by_key(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Plain values of a configuration by dotted keys; a part's name has the part's own key, before its options.

    Below ``extra``, which is the user's, a ``name`` is a key like any other.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        named = name == "name" and path and path.partition(".")[0] != "extra"
        key = path if named else f"{path}.{name}" if path else str(name)
        found |= by_key(value, key) if isinstance(value, Mapping) else {key: value}
    return found


def instead_of(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """By key, of some values those that others have otherwise: of a part that was replaced, its name."""
    found: dict[str, Any] = {}
    for key in dict.fromkeys([*base, *values]):
        if base.get(key) != values.get(key) and not within(key, found):
            found[key] = base.get(key)
    return found


def within(key: str, others: Iterable[str]) -> bool:
    """Whether a key is one of these, or below one, as a part's options are below its name."""
    return any(key == other or key.startswith(f"{other}.") for other in others)


def _list(values: Any, kind: str, source: object) -> dict[str, PartConfig]:
    """The parts of a list by name."""
    parts = _mapping(values, kind, source)
    return {name: PartConfig.read(part, f"{kind}.{name}", source) for name, part in parts.items()}


def _options(cls: type[Options], values: Any, key: str, source: object) -> Options:
    fields = _fields(cls, _mapping(values, key, source), f"{key}.", source)
    try:
        return cls(**fields)
    except ToolkitError as error:
        raise ToolkitError(f"{source}: {key}.{error}") from None


def _fields(cls: type, values: Mapping[str, Any], prefix: str, source: object) -> dict[str, Any]:
    """Those of a dataclass's fields that have values, converted to its types."""
    fields = [field for field in schema.fields(cls) if field.name in values]
    try:
        return {field.name: field.convert(values[field.name], f"{prefix}{field.name}") for field in fields}
    except ToolkitError as error:
        raise ToolkitError(f"{source}: {error}") from None


def _mapping(values: Any, key: str, source: object) -> dict[str, Any]:
    if values is not None and not isinstance(values, Mapping):
        raise ToolkitError(f"{source}: {key} is not a mapping")
    return dict(values or {})


def _names(values: Any, part: str, source: object) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(name, str) for name in values):
        raise ToolkitError(f"{source}: conditions.{part} is not a list of names")
    return tuple(values)


def _plain(options: Any) -> dict[str, Any]:
    return {name: _value(value) for name, value in asdict(options).items()}


def _value(value: Any) -> Any:
    """As YAML has it."""
    return list(value) if isinstance(value, tuple) else value
