"""The choices by config group: registered names, nested parts and YAML files, without Hydra."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from toolkit import registry
from toolkit.modules import locate
from toolkit.registry import KINDS, LISTS
from toolkit.schema import SchemaError, signature


def kind_of(group: str) -> str | None:
    """The kind of parts that a group offers, such as quantizer for ``quantizer/inner``; None where it offers none."""
    head, *options = group.split("/")
    kind = head if head in KINDS else None
    for option in options:
        kind = nested(kind).get(option) if kind else None
    return kind


def listed(path: str) -> tuple[str, str] | None:
    """Kind and name of a part of a list, such as ``metric.codebook``; None for any other path."""
    kind, _, name = path.partition(".")
    return (kind, name) if kind in LISTS and name else None


def nested(kind: str) -> dict[str, str]:
    """The nested parts of all components of a kind, with the kind of each."""
    return _nested(registry.registrations(kind))


@cache
def _nested(registrations: tuple[registry.Registration, ...]) -> dict[str, str]:
    kinds: dict[str, str] = {}
    for registration in registrations:
        try:
            options = signature(registration.kind, registration.name).options
        except (SchemaError, registry.RegistryError):  # reported when that is selected
            continue
        kinds |= {option.name: option.nested for option in options if option.nested}
    return kinds


def presets(group: str, folder: str | None = None) -> dict[str, str]:
    """The YAML files of a group by name, with the distribution they come from."""
    owners: dict[str, str] = {}
    for owner, home in _homes(folder):
        for file in sorted((home / group).glob("*.yaml")):
            owners.setdefault(file.stem, owner)
    return owners


def claims(group: str, name: str) -> list[str]:
    """Every distribution that provides a YAML file of this group and name."""
    return [owner for owner, home in _homes() if (home / group / f"{name}.yaml").is_file()]


def shadows() -> list[str]:
    """YAML files that are not used, a sentence each: their names are registered, or also another package's."""
    owners: dict[tuple[str, str], list[tuple[str, Path]]] = {}
    for owner, home in _homes():
        for file in sorted(home.glob("*/**/*.yaml")):
            group = file.parent.relative_to(home).as_posix()
            owners.setdefault((group, file.stem), []).append((owner, file))
    problems = []
    for (group, name), claimed in owners.items():
        kind = kind_of(group)
        if kind and name in registry.names(kind):
            problems += [f"{file} of {owner} is not used: {kind}={name} is registered" for owner, file in claimed]
        elif len(claimed) > 1:
            problems.append(f"{group}={name} is provided by {' and '.join(o for o, _ in claimed)}: {claimed[0][1]}")
    return problems


def _homes(folder: str | None = None) -> list[tuple[str, Path]]:
    own = locate("toolkit.conf")
    homes = [(registry.CORE, own.parent)] if own else []
    return [*homes, *registry.conf_folders(), *([(folder, Path(folder))] if folder else [])]
