"""What of a run's configuration is not as its experiment has it, or the parts and the trainers by default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from toolkit import registry, schema
from toolkit.config import Experiment, by_key
from toolkit.errors import ToolkitError
from toolkit.options import TRAINERS


class Setting(NamedTuple):
    """One value."""

    key: str
    value: str
    default: str
    """What it is otherwise; empty for a choice, and for an option that must be given."""


class Changes(NamedTuple):
    """What a run has otherwise than the experiment that it began with."""

    experiment: str
    settings: list[Setting]
    """With the experiment's own values; empty, too, for a part that it does not have."""


def changes(config: Mapping[str, Any]) -> Changes | None:
    """None where it began with no experiment, or that can't be read."""
    try:
        experiment = Experiment.read(config.get("experiment"), "")
    except ToolkitError:
        return None
    if experiment is None:
        return None
    values = by_key({key: value for key, value in config.items() if key != "experiment"})
    without = {one.key for one in settings(config) if not one.default}
    pairs = ((key, text(values.get(key)), own) for key, own in experiment.instead_of.items())
    found = [
        Setting(key, value, "" if own is None and key in without else text(own))
        for key, value, own in pairs
        if value != text(own)
    ]
    return Changes(experiment.name, found)


def settings(config: Mapping[str, Any]) -> list[Setting]:
    """Choices of parts, and values other than their defaults, in the configuration's order."""
    found: list[Setting] = []
    for key, value in config.items():
        if key in registry.KINDS:
            found += _parts(key, value)
        elif key in TRAINERS and isinstance(value, Mapping):
            found += _changed(key, value, {option.name: option.default for option in schema.fields(TRAINERS[key])})
        elif key != "experiment" and value not in (None, {}, []):
            found.append(Setting(key, text(value), ""))
    return found


def text(value: Any) -> str:
    """A value as the command line takes it, numbers to six digits."""
    return schema.spell_value(value, "{:g}".format)


def _parts(kind: str, value: Any) -> Iterator[Setting]:
    if kind in registry.LISTS and isinstance(value, Mapping):
        for name, part in value.items():
            yield from _part(kind, f"{kind}.{name}", part)
    else:
        yield from _part(kind, kind, value)


def _part(kind: str, key: str, part: Any) -> Iterator[Setting]:
    if not isinstance(part, Mapping) or "name" not in part:
        return
    yield Setting(key, str(part["name"]), "")
    try:
        signature = schema.signature(kind, str(part["name"]))
    except ToolkitError:  # a part that is not installed has no known defaults
        yield from (Setting(f"{key}.{name}", text(value), "") for name, value in part.items() if name != "name")
        return
    for option in signature.options:
        if option.name not in part:
            continue
        value = part[option.name]
        if option.nested and isinstance(value, Mapping):
            yield from _part(option.nested, f"{key}.{option.name}", value)
        else:
            yield from _changed(key, {option.name: value}, {option.name: option.default})


def _changed(key: str, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[Setting]:
    for name, value in values.items():
        default = defaults.get(name)
        if text(value) != text(default):
            yield Setting(f"{key}.{name}", text(value), "" if default == schema.MISSING else text(default))
