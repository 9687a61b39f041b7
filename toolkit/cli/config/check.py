"""A composed configuration against the signatures of its parts: every value of its type, nothing unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig

from toolkit import registry, schema
from toolkit.cli.config import errors
from toolkit.cli.config.nodes import chosen, plain
from toolkit.errors import ToolkitError
from toolkit.options import TRAINERS, RunOptions
from toolkit.registry import KINDS, LISTS, find
from toolkit.schema import Option, Signature, signature

_RUN = schema.fields(RunOptions)
_CONDITIONS = tuple(Option(part, list[str], []) for part in ("decoder", "prior"))


def validate(composed: DictConfig, typed: Sequence[str], complete: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A composed configuration, without Hydra's own part, as a plain one, and the notices.

    ``typed`` are the dotted keys that the user wrote, which are never dropped.
    """
    values = errors.resolved(composed)
    check = _Check(tuple(typed), complete, _chosen_parts(composed))
    known = [*(option.name for option in _RUN), *KINDS, "conditions", *TRAINERS, "prior_dataset", "extra"]
    for key in values:
        if key not in known:
            raise ToolkitError(errors.unknown(key, known))
    config = {option.name: check.value(option, values.get(option.name), option.name) for option in _RUN}
    _ranged(RunOptions, config, "")
    for kind in KINDS:
        config[kind] = check.part(kind, kind, composed.get(kind), values.get(kind))
    check.likelihood(config)
    config["conditions"] = check.table("conditions", values["conditions"], _CONDITIONS)
    _once(config["conditions"])
    for trainer, options in TRAINERS.items():
        config[trainer] = check.table(trainer, values.get(trainer), schema.fields(options))
        _ranged(options, config[trainer], f"{trainer}.")
    config["prior_dataset"] = check.prior_dataset(values["prior_dataset"], config["dataset"])
    config["extra"] = mapping_of(values["extra"], "extra")
    return config, tuple(check.notices)


@dataclass
class _Check:
    """One pass over a composed configuration."""

    typed: tuple[str, ...]
    complete: bool
    parts: Mapping[str, Signature]
    """The chosen parts, by their keys."""
    notices: list[str] = field(default_factory=list)

    def part(self, kind: str, path: str, node: Any, values: Any) -> dict[str, Any] | None:
        """A component with its options in the signature's order, nested parts included."""
        if kind == path and kind in LISTS:
            return {name: self.part(kind, f"{path}.{name}", node[name], values[name]) for name in values or {}}
        if values is None or values == schema.MISSING:
            self._absent(kind, path)
            return None
        component = _chosen(kind, path, node, values)
        self._leftovers(component, path, values)
        config: dict[str, Any] = {"name": component.name}
        for option in component.options:
            config[option.name] = self._option(option, f"{path}.{option.name}", node, values)
        return config

    def likelihood(self, config: dict[str, Any]) -> None:
        """Drops the likelihood, chosen for another decoder, where this one takes none."""
        decoder, chosen = config["decoder"], config["likelihood"]
        if decoder and chosen and "likelihood" not in signature("decoder", decoder["name"]).given:
            reason = f"decoder={decoder['name']} models the data itself"
            self.notices.append(f"note: {reason}: likelihood={chosen['name']} is ignored")
            config["likelihood"] = None

    def table(self, path: str, values: Any, options: Sequence[Option]) -> dict[str, Any]:
        """Options that do not belong to a component."""
        values = mapping_of(values, path)
        names = [option.name for option in options]
        for key in values:
            if key not in names:
                raise ToolkitError(errors.no_option(f"{path}.{key}", path, names))
        pairs = ((option, values.get(option.name, option.default)) for option in options)
        return {option.name: self.value(option, value, f"{path}.{option.name}") for option, value in pairs}

    def prior_dataset(self, values: Any, dataset: Mapping[str, Any] | None) -> dict[str, Any]:
        """Options of the dataset that differ in the prior's stage."""
        typed = mapping_of(values, "prior_dataset")
        if dataset is None:
            return typed
        component = signature("dataset", dataset["name"])
        config = {}
        for key, value in typed.items():
            option = component.option(key)
            if option is None:
                raise ToolkitError(self._no_option(component, "prior_dataset", key))
            config[key] = self.value(option, value, f"prior_dataset.{key}")
        return config

    def value(self, option: Option, value: Any, path: str) -> Any:
        """One value, converted to the option's type."""
        if isinstance(value, str) and value == schema.MISSING:
            if self.complete:
                raise ToolkitError(f"{path}: no value; add {path}=VALUE ({option.wanted})")
            return None
        return plain(option.convert(value, path))

    def _absent(self, kind: str, path: str) -> None:
        if self.complete and path in registry.REQUIRED:
            raise ToolkitError(errors.no_part(kind))
        if self.complete and path not in KINDS:
            installed = ", ".join(registry.names(kind)) or "none"
            raise ToolkitError(f"{path}: no {kind} chosen: add {path}.name=NAME; installed: {installed}")

    def _option(self, option: Option, path: str, node: Any, values: Mapping[str, Any]) -> Any:
        value = values.get(option.name, schema.MISSING)
        if option.nested:
            inner = None if value == schema.MISSING else node.get(option.name)
            return self.part(option.nested, path, inner, value)
        return self.value(option, value, path)

    def _leftovers(self, component: Signature, path: str, values: Mapping[str, Any]) -> None:
        """Unknown options: the user's are mistakes, an experiment's may be meant for another part."""
        unknown = [key for key in values if key != "name" and not component.option(key)]
        for key in unknown:
            if self._typed(f"{path}.{key}") or not _owners(component.kind, key):
                raise ToolkitError(self._no_option(component, path, key))
        if unknown:
            owners = set.intersection(*(_owners(component.kind, key) for key in unknown)) or {"another"}
            meant = f"set for {path}={' or '.join(sorted(owners))}"
            self.notices.append(f"note: {path}={component.name} has no {', '.join(unknown)} ({meant}): ignored")

    def _no_option(self, component: Signature, path: str, key: str) -> str:
        """An option that a part does not have, and which of the other chosen parts have one of this name."""
        options = [option.name for option in component.options]
        elsewhere = [f"{own}.{key}" for own, part in self.parts.items() if own != path and part.option(key)]
        elsewhere += [f"{trainer}.{key}" for trainer, own in TRAINERS.items() if key in _names(own)]
        return errors.no_option(f"{path}.{key}", str(find(component.kind, component.name)), options, elsewhere[:2])

    def _typed(self, key: str) -> bool:
        return any(word == key or word.startswith(f"{key}.") for word in self.typed)


def _chosen(kind: str, path: str, node: Any, values: Any) -> Signature:
    name = chosen(node) if isinstance(node, DictConfig) else None
    written = values.get("name") if isinstance(values, Mapping) else values
    if name is None:
        cure = f"choose it by name, {path}=NAME; installed: {', '.join(registry.names(kind)) or 'none'}"
        raise ToolkitError(f"{path}: no {kind} was chosen for these options; {cure}")
    if written != name:
        cure = f"in YAML a part is chosen in the defaults list: override /{path.replace('.', '/')}: {written}"
        raise ToolkitError(f"{path}.name: {written} is given as a value; {cure}")
    return signature(kind, name)


def _chosen_parts(composed: DictConfig) -> dict[str, Signature]:
    """The parts that were chosen by name, except those that cannot be read, which is reported elsewhere."""
    nodes = {kind: composed.get(kind) for kind in KINDS if kind not in LISTS}
    nodes |= {f"{kind}.{name}": part for kind in LISTS for name, part in (composed.get(kind) or {}).items()}
    parts: dict[str, Signature] = {}
    for path, node in nodes.items():
        name = chosen(node) if isinstance(node, DictConfig) else None
        with suppress(ToolkitError):
            parts |= {path: signature(path.partition(".")[0], name)} if name else {}
    return parts


def _names(options: type) -> list[str]:
    return [option.name for option in schema.fields(options)]


def _owners(kind: str, option: str) -> set[str]:
    """Which components of a kind have an option of this name."""
    owners = set()
    for name in registry.names(kind):
        try:
            owners |= {name} if signature(kind, name).option(option) else set()
        except ToolkitError:  # reported when that is selected
            continue
    return owners


def mapping_of(values: Any, path: str) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise ToolkitError(f"{path}: expects {path}.OPTION=VALUE, got {values!r}")
    return dict(values)


def _once(conditions: Mapping[str, list[str]]) -> None:
    """ToolkitError where a part would see a condition twice."""
    for part, names in conditions.items():
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ToolkitError(f"conditions.{part}=[{','.join(names)}]: it names {twice} twice")


def _ranged(cls: type, config: Mapping[str, Any], prefix: str) -> None:
    options = {option.name: option.convert(config[option.name]) for option in schema.fields(cls)}
    try:
        cls(**options)
    except ToolkitError as error:
        raise ToolkitError(f"{prefix}{error}") from None
