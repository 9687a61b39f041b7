"""Who registers something: the entry points of installed distributions and of plugin folders.

A registration is one entry point of the group ``toolkit.<kind>``; a plugin's YAML folder is one of
``toolkit.conf``. They come from the installed distributions (an editable one is read live from its
pyproject.toml) and from the folders of ``TOOLKIT_PLUGIN_PATH``. Reading them runs no plugin's code.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path
from urllib.parse import unquote, urlparse

CORE = "discrete-toolkit"
PLUGIN_PATH = "TOOLKIT_PLUGIN_PATH"
CONF = "conf"


@dataclass(frozen=True)
class Registration:
    """One name of one kind: the class ``target`` ("module:Class") and who provides it."""

    kind: str
    name: str
    target: str
    distribution: str
    version: str
    folder: Path | None = None
    """Where the modules are, for a plugin that is not installed."""
    requires: str = ""
    """Which versions of the core its distribution requires, such as ``>=0.2,<0.3``; empty: any."""

    def __str__(self) -> str:
        return f"{self.kind}={self.name} ({self.distribution} {self.version}; {self.target})"


@dataclass(frozen=True, eq=False)
class Source:
    """A distribution, or a plugin folder: its entry points, by group, or why they cannot be read."""

    name: str
    version: str
    groups: Mapping[str, Mapping[str, str]]
    folder: Path | None = None
    problem: str = ""
    requires: str = ""
    """Which versions of the core it requires."""

    def registrations(self, kind: str) -> Iterator[Registration]:
        for name, target in self.groups.get(f"toolkit.{kind}", {}).items():
            yield Registration(kind, name, target, self.name, self.version, self.folder, self.requires)

    def kinds(self) -> list[str]:
        """What its groups name, kinds or not."""
        return [group.removeprefix("toolkit.") for group in self.groups if group != f"toolkit.{CONF}"]

    def parts(self) -> Iterator[Registration]:
        """Registrations of all kinds."""
        for kind in self.kinds():
            yield from self.registrations(kind)


def sources() -> tuple[Source, ...]:
    """All that register something; a plugin folder takes precedence over an installation of the same name."""
    return _sources(os.environ.get(PLUGIN_PATH, ""))


@cache
def _sources(plugin_path: str) -> tuple[Source, ...]:
    by_name: dict[str, Source] = {}
    for source in (*_uninstalled(plugin_path), *map(_installed, distributions())):
        if source.groups or source.problem:
            by_name.setdefault(normalized(source.name), source)
    return tuple(by_name.values())


def normalized(name: str) -> str:
    """A distribution's name in the form in which names are compared: lower case, with hyphens."""
    return name.lower().replace("_", "-").replace(".", "-")


def _uninstalled(plugin_path: str) -> Iterator[Source]:
    for entry in filter(None, plugin_path.split(os.pathsep)):
        folder = Path(entry).expanduser().resolve()
        projects = [folder / "pyproject.toml", *sorted(folder.glob("*/pyproject.toml"))]
        projects = [project for project in projects if project.is_file()]
        yield from (_project(project, folder=project.parent) for project in projects)
        if not projects:
            yield Source(entry, "", {}, problem=f"{PLUGIN_PATH}: {entry} holds no pyproject.toml")


def _installed(distribution: Distribution) -> Source:
    project = checkout(distribution)
    if project:
        return _project(project, distribution)
    groups: dict[str, dict[str, str]] = {}
    for point in distribution.entry_points:
        if point.group.startswith("toolkit."):
            groups.setdefault(point.group, {})[point.name] = point.value
    # Parsing a distribution's metadata is slow: only for those that register something.
    if not groups:
        return Source("", "", {})
    requires = _of_core(distribution.requires or [])
    return Source(distribution.name, distribution.version, groups, requires=requires)


def checkout(distribution: Distribution) -> Path | None:
    """The pyproject.toml that an editable installation, or an egg-info in a checkout, was built from."""
    sibling = Path(str(distribution.locate_file("pyproject.toml")))
    if sibling.is_file():
        return sibling
    text = distribution.read_text("direct_url.json")
    record = json.loads(text) if text else {}
    if not record.get("dir_info", {}).get("editable"):
        return None
    project = Path(unquote(urlparse(record["url"]).path)) / "pyproject.toml"
    return project if project.is_file() else None


def _project(file: Path, distribution: Distribution | None = None, folder: Path | None = None) -> Source:
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})
        name = str(project.get("name", file.parent.name))
        points = project.get("entry-points", {}).items()
        groups = {group: _targets(entries) for group, entries in points if group.startswith("toolkit.")}
        requires = _of_core(project.get("dependencies", []))
    except (OSError, ValueError, AttributeError) as error:
        return Source(file.parent.name, "", {}, problem=f"{file} cannot be read: {error}")
    released = project.get("version") or (distribution.version if distribution else "unversioned")
    return Source(name, released, groups, folder, requires=requires)


def _of_core(requirements: Iterable[str]) -> str:
    """Of requirements such as ``discrete-toolkit[test]>=0.1; python_version > "3"``, the core's versions."""
    for requirement in requirements:
        match = re.match(r"([\w.-]+)\s*(?:\[[^]]*\])?\s*\(?([^;)@]*)", requirement)
        if match and normalized(match[1]) == CORE:
            return match[2].strip()
    return ""


def _targets(points: Mapping[str, object]) -> dict[str, str]:
    return {name: str(target) for name, target in points.items()}
