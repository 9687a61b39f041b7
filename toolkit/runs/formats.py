"""The format number of a run's files, and what was renamed since earlier formats.

``config.yaml``, ``spec.json``, a checkpoint's ``state.json`` and the metadata of codes carry ``format``. Files of
version 0.1 have no number: their format is 0. An older file is read under today's names; a newer one is rejected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.errors import ToolkitError
from toolkit.registry import LISTS

FORMAT = 1
"""What this version writes."""

OPTIONS: dict[str, dict[str, str]] = {
    "quantizer": {"normalise": "normalize", "restart": "dead_code_threshold"},
}
"""Renamed options by kind: old name to new name."""

LOGGERS = {"tensorboard": "tensorboard"}
"""Switches of a run that are loggers now: option to logger."""

CONDITIONS = {"colour": "color"}
"""Renamed conditions of bundled datasets."""

SPEC = {"every": "stride", "together": "steps_per_code"}
"""Renamed fields of a condition's spec."""

WEIGHTS = {
    "back": "proj_out",
    "figures": "metrics",
    "initialised": "initialized",
    "into": "proj_in",
    "inward": "proj_in",
    "outward": "proj_out",
    "widen": "proj",
}
"""Renamed modules, buffers and other tensors of a checkpoint: each is one word of a dotted name."""


def format_of(written: Any, file: object) -> int:
    """A file's format number, 0 where it has none. ToolkitError for one that this version cannot read."""
    number = 0 if written is None else written
    if type(number) is not int or number < 0:
        raise ToolkitError(f"{file}: format={number!r} is not a format number")
    if number > FORMAT:
        raise ToolkitError(
            f"{file} has format {number}, and this version reads up to {FORMAT}: upgrade discrete-toolkit to read it"
        )
    return number


def current_config(values: Mapping[str, Any], file: object) -> dict[str, Any]:
    """A saved configuration under today's names, without its format number."""
    plain = _with_loggers({key: value for key, value in values.items() if key != "format"})
    if format_of(values.get("format"), file) >= 1:
        return plain
    for kind in plain:
        if kind in LISTS and isinstance(plain[kind], Mapping):
            plain[kind] = {name: _current_part(kind, part) for name, part in plain[kind].items()}
        else:
            plain[kind] = _current_part(kind, plain[kind])
    chosen = plain.get("conditions")
    if isinstance(chosen, Mapping):
        plain["conditions"] = {
            part: [_current(CONDITIONS, name) for name in names] if isinstance(names, list) else names
            for part, names in chosen.items()
        }
    return plain


def current_spec(values: Any, file: object) -> Any:
    """The contents of ``spec.json`` under today's names: ``data`` and ``codes``."""
    if not isinstance(values, Mapping) or format_of(values.get("format"), file) >= 1:
        return values
    data = dict(values["data"])
    data["conditions"] = [
        {_current(SPEC, key): value for key, value in condition.items()} for condition in data["conditions"]
    ]
    for condition in data["conditions"]:
        condition["name"] = _current(CONDITIONS, condition["name"])
    return {"data": data, "codes": values["latents"][0]}


def current_tensor(name: str, number: int) -> str:
    """Today's name of a tensor in a checkpoint of this format."""
    return name if number >= 1 else ".".join(_current(WEIGHTS, word) for word in name.split("."))


def current_condition(name: str, number: int) -> str:
    """Today's name of a condition in a file of this format."""
    return name if number >= 1 else CONDITIONS.get(name, name)


def _with_loggers(values: dict[str, Any]) -> dict[str, Any]:
    """The loggers in place of their switches, which files of every format may have."""
    switched = {logger: {"name": logger} for switch, logger in LOGGERS.items() if values.pop(switch, False) is True}
    return {**values, "logger": switched} if switched and not values.get("logger") else values


def _current_part(kind: str, part: Any) -> Any:
    """A part's options under today's names, nested parts included."""
    if not isinstance(part, Mapping) or not isinstance(part.get("name"), str):
        return part
    renamed = OPTIONS.get(kind, {})
    return {_current(renamed, key): _current_part(kind, value) for key, value in part.items()}


def _current(names: Mapping[str, str], name: Any) -> Any:
    return names.get(name, name) if isinstance(name, str) else name
