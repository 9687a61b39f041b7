"""Who provided a run's parts, as ``components.json`` keeps it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from toolkit import registry
from toolkit.config import PartConfig, RunConfig
from toolkit.schema import signature

Components = dict[str, dict[str, Any]]


def components(config: RunConfig, parts: Mapping[str, Any]) -> Components:
    """Name, distribution, version and number of parameters of parts by kind; parts inside parts have dotted keys."""
    provided: Components = {}
    for kind, part in parts.items():
        chosen = getattr(config, kind)
        if chosen is not None:
            count = sum(p.numel() for p in part.parameters()) if isinstance(part, nn.Module) else 0
            provided[kind] = {**_provider(kind, chosen.name), "parameters": count}
            provided |= dict(_nested(kind, kind, chosen))
    return provided


def list_components(config: RunConfig) -> Components:
    """The same for the parts of lists, which have keys such as ``metric.codebook``."""
    return {
        f"{kind}.{name}": _provider(kind, part.name)
        for kind in registry.LISTS
        for name, part in getattr(config, kind).items()
    }


def _provider(kind: str, name: str) -> dict[str, Any]:
    registration = registry.find(kind, name)
    return {
        "name": registration.name,
        "distribution": registration.distribution,
        "version": registration.version,
    }


def _nested(key: str, kind: str, part: PartConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    """The parts inside a part, at any depth."""
    for option in signature(kind, part.name).options:
        if option.nested and part.options.get(option.name):
            inner_key = f"{key}.{option.name}"
            inner = PartConfig.read(part.options[option.name], inner_key, "the configuration")
            yield inner_key, _provider(option.nested, inner.name)
            yield from _nested(inner_key, option.nested, inner)
