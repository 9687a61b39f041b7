"""What there is to choose from, by config group: registered names, nested parts, YAML files; Hydra is not asked."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from toolkit import registry
from toolkit.modules import locate
from toolkit.registry import KINDS
from toolkit.schema import SchemaError, signature


def kind_of(group: str) -> str | None:
    """The kind of parts that a group offers: ``quantizer/inner``, what some quantizer's ``inner`` may be."""
    head, *rest = group.split("/")
    kind = head if head in KINDS else None
    for option in rest:
        kind = nested(kind).get(option) if kind else None
    return kind


def nested(kind: str) -> dict[str, str]:
    """Every nested part of any component of a kind, with the kind it offers."""
    return _nested(registry.registrations(kind))


@cache
def _nested(registrations: tuple[registry.Registration, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for registration in registrations:
        try:
            options = signature(registration.kind, registration.name).options
        except (SchemaError, registry.RegistryError):  # told to whoever selects it
            continue
        found |= {option.name: option.nested for option in options if option.nested}
    return found


def presets(group: str, folder: str | None = None) -> dict[str, str]:
    """The YAML files of a group by name, with the distribution they come from."""
    found: dict[str, str] = {}
    for owner, home in _homes(folder):
        for file in sorted((home / group).glob("*.yaml")):
            found.setdefault(file.stem, owner)
    return found


def claims(group: str, name: str) -> list[str]:
    """Every distribution that brings a YAML file of this group and name."""
    return [owner for owner, home in _homes() if (home / group / f"{name}.yaml").is_file()]


def shadows() -> list[str]:
    """YAML files that stand for nothing, a sentence each: their names are registered, or another package's, too."""
    owners: dict[tuple[str, str], list[tuple[str, Path]]] = {}
    for owner, home in _homes():
        for file in sorted(home.glob("*/**/*.yaml")):
            group = file.parent.relative_to(home).as_posix()
            owners.setdefault((group, file.stem), []).append((owner, file))
    said = []
    for (group, name), claimed in owners.items():
        kind = kind_of(group)
        if kind and name in registry.names(kind):
            said += [f"{file} of {owner} is not used: {kind}={name} is registered" for owner, file in claimed]
        elif len(claimed) > 1:
            said.append(f"{' and '.join(owner for owner, _ in claimed)} bring {group}={name}, both: {claimed[0][1]}")
    return said


def _homes(folder: str | None = None) -> list[tuple[str, Path]]:
    own = locate("toolkit.conf")
    homes = [(registry.CORE, own.parent)] if own else []
    return [*homes, *registry.conf_folders(), *([(folder, Path(folder))] if folder else [])]
