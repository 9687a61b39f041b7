"""Which components exist, who brings them, and the class behind a name.

A registration is one entry point of the group ``toolkit.<kind>``; a plugin's YAML folder is one of
``toolkit.conf``. They come from the installed distributions (an editable one is read live from its
pyproject.toml) and from the folders of ``TOOLKIT_PLUGIN_PATH``. Reading them runs no plugin's code.
"""

from __future__ import annotations

import difflib
import inspect
import json
import os
import re
import sys
import tomllib
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, distributions
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from toolkit.errors import Elsewhere, ToolkitError

KINDS: Mapping[str, str] = {
    "dataset": "toolkit.dataset:Dataset",
    "encoder": "toolkit.encoder:Encoder",
    "quantizer": "toolkit.quantizer:Quantizer",
    "decoder": "toolkit.decoder:Decoder",
    "likelihood": "toolkit.likelihood:Likelihood",
    "objective": "toolkit.objective:Objective",
    "prior": "toolkit.prior:Prior",
    "metric": "toolkit.metric:Metric",
}
"""Every kind of component and the interface that its classes implement."""

CORE = "discrete-toolkit"
REQUIRED = ("dataset", "encoder", "quantizer", "decoder", "objective")
"""The kinds without which there is no model."""
PLUGIN_PATH = "TOOLKIT_PLUGIN_PATH"
CONF = "conf"


class RegistryError(ToolkitError):
    """A component that is not there, does not import, is claimed twice or does not keep its interface."""


class NotInstalled(RegistryError):
    """A name that nobody claims."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(_missing(kind, name))
        self.kind, self.name = kind, name


@dataclass(frozen=True)
class Registration:
    """One name of one kind: the class ``target`` ("module:Class") and who brings it."""

    kind: str
    name: str
    target: str
    distribution: str
    version: str
    folder: Path | None = None
    """Where the modules lie, for a plugin that is not installed."""
    requires: str = ""
    """Which versions of the core its distribution asks for, such as ``>=0.2,<0.3``; empty: any."""

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
    """Which versions of the core it asks for."""

    def registrations(self, kind: str) -> Iterator[Registration]:
        for name, target in self.groups.get(f"toolkit.{kind}", {}).items():
            yield Registration(kind, name, target, self.name, self.version, self.folder, self.requires)


def names(kind: str) -> tuple[str, ...]:
    """The installed names of a kind, sorted."""
    return tuple(sorted({registration.name for registration in registrations(kind)}))


def registrations(kind: str) -> tuple[Registration, ...]:
    """Every claim to a name of this kind, sorted by name; a name claimed twice appears twice."""
    _known(kind)
    return _registrations(kind, sources())


@cache
def _registrations(kind: str, claimants: tuple[Source, ...]) -> tuple[Registration, ...]:
    found = [registration for source in claimants for registration in source.registrations(kind)]
    return tuple(sorted(found, key=lambda registration: (registration.name, registration.distribution)))


def find(kind: str, name: str) -> Registration:
    """The registration of a name. RegistryError where nobody, or more than one distribution, claims it."""
    claims = [registration for registration in registrations(kind) if registration.name == name]
    if not claims:
        raise NotInstalled(kind, name)
    if len(claims) > 1:
        owners = " and ".join(f"{claim.distribution} {claim.version} ({claim.target})" for claim in claims)
        raise RegistryError(f"{kind}={name} is claimed by {owners}: uninstall one of them")
    return claims[0]


def load(kind: str, name: str) -> type:
    """The class behind a name, imported, and checked to be a complete implementation of its interface."""
    registration = find(kind, name)
    check_core(registration)
    found = _imported(registration)
    interface = _attribute(KINDS[kind])
    if not (isinstance(found, type) and issubclass(found, interface)):
        raise RegistryError(f"{registration} is no {interface.__name__}: it must subclass {KINDS[kind]}")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise RegistryError(f"{registration} is incomplete: {interface.__name__} also needs {missing}")
    return found


def check_core(registration: Registration) -> None:
    """RegistryError where the plugin's own requirement refuses the core that is installed."""
    if not registration.requires:
        return
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # here, as listing names does without

    core = metadata.version(CORE)
    try:
        fits = SpecifierSet(registration.requires).contains(core, prereleases=True)
    except InvalidSpecifier:
        raise RegistryError(f"{registration}: its requirement {CORE}{registration.requires} cannot be read") from None
    if not fits:
        raise RegistryError(
            f"{registration} is made for {CORE} {registration.requires}, installed is {core}: install a version of"
            f" {registration.distribution} for it, or another {CORE}"
        )


def version(distribution: str) -> str | None:
    """Of a distribution that registers something; None where there is no such one."""
    wanted = _normal(distribution)
    return next((source.version for source in sources() if _normal(source.name) == wanted), None)


def conf_folders() -> tuple[tuple[str, Path], ...]:
    """The YAML folders that plugins bring, as (distribution, folder), found without importing them."""
    found = []
    for source in sources():
        for module in source.groups.get(f"toolkit.{CONF}", {}).values():
            found += [(source.name, folder) for folder in _folders(module, source.folder)]
    return tuple(dict.fromkeys(found))


def problems() -> tuple[str, ...]:
    """What cannot be read at all, a sentence each: such plugins' names are missing from the registry."""
    return tuple(source.problem for source in sources() if source.problem)


def locate(module: str, folder: Path | None = None) -> Path | None:
    """The source file of a module, found without importing it or its parents; None where there is none."""
    spec = _spec(module, folder)
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """`` (did you mean x?)``, or nothing where no word is near."""
    near = difflib.get_close_matches(word, list(words), n=2, cutoff=0.6)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def sources() -> tuple[Source, ...]:
    """Everybody who registers something; a plugin folder stands before an installation of the same name."""
    return _sources(os.environ.get(PLUGIN_PATH, ""))


@cache
def _sources(plugin_path: str) -> tuple[Source, ...]:
    found: dict[str, Source] = {}
    for source in (*_uninstalled(plugin_path), *map(_installed, distributions())):
        if source.groups or source.problem:
            found.setdefault(_normal(source.name), source)
    return tuple(found.values())


def _normal(name: str) -> str:
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
    # Parsing a distribution's metadata is slow: only for those that concern us.
    if not groups:
        return Source("", "", {})
    requires = _of_core(distribution.requires or [])
    return Source(distribution.name, distribution.version, groups, requires=requires)


def checkout(distribution: Distribution) -> Path | None:
    """The pyproject.toml that an editable installation, or an egg-info in a checkout, was made from."""
    beside = Path(str(distribution.locate_file("pyproject.toml")))
    if beside.is_file():
        return beside
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
        groups = {group: _targets(found) for group, found in points if group.startswith("toolkit.")}
        requires = _of_core(project.get("dependencies", []))
    except (OSError, ValueError, AttributeError) as error:
        return Source(file.parent.name, "", {}, problem=f"{file} cannot be read: {error}")
    released = project.get("version") or (distribution.version if distribution else "unversioned")
    return Source(name, released, groups, folder, requires=requires)


def _of_core(requirements: Iterable[str]) -> str:
    """Of requirements such as ``discrete-toolkit[test]>=0.2; python_version > "3"``, the core's versions."""
    for requirement in requirements:
        found = re.match(r"([\w.-]+)\s*(?:\[[^]]*\])?\s*\(?([^;)@]*)", requirement)
        if found and _normal(found[1]) == CORE:
            return found[2].strip()
    return ""


def _targets(points: Mapping[str, object]) -> dict[str, str]:
    return {name: str(target) for name, target in points.items()}


def _known(kind: str) -> None:
    if kind not in KINDS:
        raise RegistryError(
            f"no kind of component is called {kind}{did_you_mean(kind, KINDS)}; kinds: {', '.join(KINDS)}"
        )


def _missing(kind: str, name: str) -> str:
    installed = names(kind)
    lines = [f"{kind}={name} is not installed{did_you_mean(name, installed)}"]
    lines.append(f"installed: {', '.join(installed) or 'none'}")
    return "\n".join([*lines, *(f"note: {problem}" for problem in problems())])


def _imported(registration: Registration) -> Any:
    _open(registration.folder)
    try:
        return _attribute(registration.target)
    except KeyboardInterrupt:
        raise
    except BaseException as cause:  # a plugin may raise anything at import, SystemExit included
        raise RegistryError(f"{registration} does not import: {blame(cause)}") from cause


def _attribute(target: str) -> Any:
    module, separator, attribute = target.partition(":")
    if not (module and separator and attribute):
        raise ValueError(f"{target!r} is not written module:Class")
    return getattr(import_module(module), attribute)


def _open(folder: Path | None) -> None:
    """Makes an uninstalled plugin importable, here and in child processes that copy sys.path."""
    for path in reversed(_roots(folder)):
        if path not in sys.path:
            sys.path.insert(0, path)


def _roots(folder: Path | None) -> list[str]:
    if folder is None:
        return []
    return [str(root) for root in (folder / "src", folder) if root.is_dir()]


def blame(error: BaseException) -> str:
    """An error in one line: type, message and the file and line where it was raised."""
    if isinstance(error, Elsewhere):
        return str(error)
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if isinstance(error, SyntaxError):  # its own text ends with file and line, but only the file's name
        return f"SyntaxError: {error.msg} ({error.filename}:{error.lineno})"
    ours = (__file__, import_module.__code__.co_filename)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")]
    places = [frame for frame in frames if frame.filename not in ours]
    if not places:
        return text
    for frame in reversed(places):  # a plugin's own line, though it fails deep in a library that the plugin calls
        plugin = owner(Path(frame.filename))
        if plugin:
            return f"{text} ({frame.filename}:{frame.lineno}, {plugin})"
    return f"{text} ({places[-1].filename}:{places[-1].lineno})"


def owner(file: Path) -> str:
    """Who brings a source file: ``encoder=mine of my-plugin 1.2``; empty for the core's and for everybody else's."""
    for source in sources():
        if source.name == CORE:
            continue
        packages = set()
        for registration in chain.from_iterable(map(source.registrations, KINDS)):
            module = registration.target.partition(":")[0]
            if locate(module, source.folder) == file:
                return f"{registration.kind}={registration.name} of {source.name} {source.version}"
            packages.add(module.partition(".")[0])
        if any(file.is_relative_to(home) for package in packages for home in _folders(package, source.folder)):
            return f"{source.name} {source.version}"
    return ""


def _spec(module: str, folder: Path | None) -> ModuleSpec | None:
    # importlib.util.find_spec would import the parents, and torch with them; the finders alone do not.
    parts = module.split(".")
    paths: list[str] | None = None
    spec = None
    for depth in range(1, len(parts) + 1):
        spec = _ask(".".join(parts[:depth]), paths, _roots(folder) if depth == 1 else [])
        if spec is None:
            return None
        paths = list(spec.submodule_search_locations or [])
    return spec


def _ask(module: str, paths: list[str] | None, roots: list[str]) -> ModuleSpec | None:
    for finder in sys.meta_path:
        for where in (roots, paths) if roots else (paths,):
            found = _ask_one(finder, module, where)
            if found is not None:
                return found
    return None


def _ask_one(finder: Any, module: str, paths: list[str] | None) -> ModuleSpec | None:
    try:
        found: ModuleSpec | None = finder.find_spec(module, paths)
        return found
    except KeyError:  # a folder without __init__.py, inside a package that is not imported
        folders = [str(Path(path) / module.rpartition(".")[2]) for path in paths or []]
        spec = ModuleSpec(module, None, is_package=True)
        spec.submodule_search_locations = [folder for folder in folders if Path(folder).is_dir()]
        return spec


def _folders(module: str, folder: Path | None) -> list[Path]:
    spec = _spec(module, folder)
    found = [Path(path) for path in (spec.submodule_search_locations or [])] if spec else []
    return [path for path in found if path.is_dir()]
