"""Signatures as typed OmegaConf nodes."""

from __future__ import annotations

import enum
import types
from collections.abc import Sequence
from dataclasses import field, make_dataclass
from functools import cache
from typing import Any, Dict, List, Literal, Optional, Union, get_args, get_origin  # noqa: UP035

from omegaconf import DictConfig, OmegaConf

from toolkit import schema
from toolkit.options import TRAINERS
from toolkit.registry import Registration, find
from toolkit.schema import MISSING, Option, read, signature


def component_node(kind: str, name: str) -> DictConfig:
    """The options of a component, with ``name`` first; nested parts are in its defaults list."""
    options = signature(kind, name).options
    node = _open(_component_class(find(kind, name)))
    nested = [{option.name: None if option.required else option.default} for option in options if option.nested]
    if nested:
        node.defaults = [*nested, "_self_"]
    return node


def trainer_node(trainer: str) -> DictConfig:
    """The options of a stage's training."""
    return _open(_trainer_class(trainer))


def chosen(node: DictConfig) -> str | None:
    """The name of the component that a composed node was created for; None where it comes from YAML alone."""
    return getattr(OmegaConf.get_type(node), "component", None)


def plain(value: Any) -> Any:
    """A converted value as YAML and OmegaConf have it: tuples as lists."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def _open(cls: type) -> DictConfig:
    # Types are checked, names are not: what an experiment set for a part that was replaced must survive
    # until the whole is validated.
    node: DictConfig = OmegaConf.structured(cls)
    OmegaConf.set_struct(node, False)
    return node


@cache
def _component_class(registration: Registration) -> type:
    kind, name = registration.kind, registration.name
    head = Option("name", str, name)
    return _class(f"{kind}_{name}", (head, *read(registration).options), {"component": name})


@cache
def _trainer_class(trainer: str) -> type:
    return _class(trainer, schema.fields(TRAINERS[trainer]), {})


def _class(name: str, options: Sequence[Option], namespace: dict[str, Any]) -> type:
    fields = [(option.name, _type(option), _default(option)) for option in options]
    return make_dataclass(name, fields, namespace=namespace)


def _type(option: Option) -> Any:
    return Any if option.nested else _node_type(option.type)


def _default(option: Option) -> Any:
    if option.nested or option.required:
        return field(default=MISSING)
    value = plain(option.default)
    if get_origin(_strip(option.type)) is Literal and value is not None and _all_text(option.type):
        value = _enum(get_args(_strip(option.type)))[value]
    return field(default_factory=lambda: value)


def _node_type(wanted: Any) -> Any:
    """The nearest type that OmegaConf can check; what it cannot is checked after composing."""
    origin, parts = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        return Optional[_node_type(_strip(wanted))]  # noqa: UP045
    if origin is Literal:
        return _enum(parts) if _all_text(wanted) else Any
    if origin in (list, tuple):
        items = set(parts) - {Ellipsis}
        return List[_node_type(items.pop()) if len(items) == 1 else Any]  # type: ignore[misc]  # noqa: UP006
    if origin is dict:
        return Dict[parts[0], _node_type(parts[1])]  # type: ignore[valid-type,misc]  # noqa: UP006
    return wanted


def _strip(wanted: Any) -> Any:
    if get_origin(wanted) not in (Union, types.UnionType):
        return wanted
    return Union[tuple(part for part in get_args(wanted) if part is not types.NoneType)]  # noqa: UP007


def _all_text(wanted: Any) -> bool:
    return all(isinstance(choice, str) for choice in get_args(_strip(wanted)))


@cache
def _enum(choices: tuple[str, ...]) -> type[enum.Enum]:
    return enum.Enum("Choice", {choice: choice for choice in choices})  # type: ignore[return-value]
