"""Which components exist, and the class behind a name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from toolkit.blame import blame
from toolkit.entry_points import CONF, Source, normalized, sources
from toolkit.entry_points import CORE as CORE
from toolkit.entry_points import PLUGIN_PATH as PLUGIN_PATH
from toolkit.entry_points import Registration as Registration
from toolkit.errors import ToolkitError
from toolkit.modules import import_target, package_folders

KINDS: Mapping[str, str] = {
    "dataset": "toolkit.dataset:Dataset",
    "encoder": "toolkit.encoder:Encoder",
    "quantizer": "toolkit.quantizer:Quantizer",
    "decoder": "toolkit.decoder:Decoder",
    "likelihood": "toolkit.likelihood:Likelihood",
    "objective": "toolkit.objective:Objective",
    "prior": "toolkit.prior:Prior",
    "metric": "toolkit.metric:Metric",
    "logger": "toolkit.logger:Logger",
}
"""Every kind of component that a run chooses, and the interface that its classes implement."""

INNER: Mapping[str, str] = {
    "discriminator": "toolkit.discriminator:Discriminator",
    "conditioner": "toolkit.conditioner:Conditioner",
}
"""The kinds of components that stand inside others alone, such as an objective's discriminator."""

HOSTS: Mapping[str, tuple[str, str]] = {
    "discriminator": ("objective", "adversarial"),
    "conditioner": ("prior", "transformer"),
}
"""By inner kind, the kind and name of a part of the core that has one inside, as its option of the kind's name."""

PARTS: Mapping[str, str] = {**KINDS, **INNER}
"""Every kind of component."""

FAMILY = "family"
REGISTERED: Mapping[str, str] = {**PARTS, FAMILY: "toolkit.family:Family"}
"""Whatever entry points name: the kinds of components, and families, which are no part of a run's configuration."""

COMMAND = "command"
"""What entry points name besides: commands of ``toolkit``, which are functions."""

GROUPS = (*REGISTERED, COMMAND)
"""What follows ``toolkit.`` in the names of groups that are read."""

REQUIRED = ("dataset", "encoder", "quantizer", "decoder", "objective")
"""The kinds that every model needs."""

LISTS = ("metric", "logger")
"""The kinds of which a run has any number, chosen as ``metric=[a,b]``; the options of one are ``metric.a.OPTION``."""


class RegistryError(ToolkitError):
    """A component that is missing, does not import, is claimed twice or does not implement its interface."""


class NotInstalledError(RegistryError):
    """A name that no distribution claims."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(_missing(kind, name))
        self.kind, self.name = kind, name


def names(kind: str) -> tuple[str, ...]:
    """The installed names of a kind, sorted."""
    return tuple(sorted({registration.name for registration in registrations(kind)}))


def packages() -> tuple[str, ...]:
    """The installed parts' packages, sorted: what they log is under these names."""
    targets = {part.target for kind in PARTS for part in registrations(kind)}
    return tuple(sorted({target.partition(":")[0].partition(".")[0] for target in targets}))


def registrations(kind: str) -> tuple[Registration, ...]:
    """Every claim to a name of this kind, sorted by name; a name claimed twice appears twice."""
    _known(kind)
    return _registrations(kind, sources())


@cache
def _registrations(kind: str, claimants: tuple[Source, ...]) -> tuple[Registration, ...]:
    claims = [registration for source in claimants for registration in source.registrations(kind)]
    return tuple(sorted(claims, key=lambda registration: (registration.name, registration.distribution)))


def find(kind: str, name: str) -> Registration:
    """The registration of a name. RegistryError where no distribution, or more than one, claims it."""
    claims = [registration for registration in registrations(kind) if registration.name == name]
    if not claims:
        raise NotInstalledError(kind, name)
    if len(claims) > 1:
        owners = " and ".join(f"{claim.distribution} {claim.version} ({claim.target})" for claim in claims)
        raise RegistryError(f"{kind}={name} is claimed by {owners}: {_cure(claims)}")
    return claims[0]


def load(kind: str, name: str) -> type:
    """The class behind a name, imported and checked to implement its interface completely."""
    registration = find(kind, name)
    check_core(registration)
    cls = _imported(registration)
    interface = import_target(REGISTERED[kind])
    if not (isinstance(cls, type) and issubclass(cls, interface)):
        raise RegistryError(f"{registration} does not subclass {REGISTERED[kind]}")
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
        raise RegistryError(f"{registration} is incomplete: {interface.__name__} also needs {missing}")
    return cls


def load_command(name: str) -> Callable[[list[str]], object]:
    """The function behind a plugin's command, imported."""
    registration = find(COMMAND, name)
    check_core(registration)
    function = _imported(registration)
    if not callable(function):
        raise RegistryError(f"{registration} is no function: a command takes the words after its name")
    return cast(Callable[[list[str]], object], function)


def check_core(registration: Registration) -> None:
    """RegistryError where the plugin does not support the installed core."""
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
            f"{registration} requires {CORE} {registration.requires}, but {core} is installed: install a version of"
            f" {registration.distribution} for it, or another {CORE}"
        )


def version(distribution: str) -> str | None:
    """The version of a distribution that registers something; None for any other."""
    wanted = normalized(distribution)
    return next((source.version for source in sources() if normalized(source.name) == wanted), None)


def conf_folders() -> tuple[tuple[str, Path], ...]:
    """The YAML folders of plugins, as (distribution, folder), located without importing them."""
    folders = []
    for source in sources():
        for module in source.groups.get(f"toolkit.{CONF}", {}).values():
            folders += [(source.name, folder) for folder in package_folders(module, source.folder)]
    return tuple(dict.fromkeys(folders))


def problems() -> tuple[str, ...]:
    """What of plugins cannot be read, a sentence each: these names are missing from the registry."""
    unread = (source.problem for source in sources() if source.problem)
    mistyped = (_mistyped(source, kind) for source in sources() for kind in source.kinds() if kind not in GROUPS)
    return (*unread, *mistyped)


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """`` (did you mean x?)``, or nothing where no word is close."""
    near = difflib.get_close_matches(word, list(words), n=2, cutoff=0.6)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def _cure(claims: Sequence[Registration]) -> str:
    """What to do about a name that several claim: only others' parts can be renamed, only what is installed removed."""
    own = [claim for claim in claims if claim.distribution != CORE]
    folders = [claim for claim in own if claim.folder]
    if folders:
        return f"rename yours in {folders[0].folder}/pyproject.toml"
    if len(own) < len(claims):
        return f"the core's name is taken: uninstall {own[0].distribution}, or rename its part"
    return "uninstall one of them"


def _mistyped(source: Source, kind: str) -> str:
    near = did_you_mean(f"toolkit.{kind}", [f"toolkit.{known}" for known in (*GROUPS, CONF)])
    return f"{source.name}: its entry points toolkit.{kind} are of no kind{near}: they are not read"


def _known(kind: str) -> None:
    if kind not in GROUPS:
        raise RegistryError(
            f"no kind of component is called {kind}{did_you_mean(kind, REGISTERED)}; kinds: {', '.join(REGISTERED)}"
        )


def _choice(kind: str, name: str) -> str:
    """A name as it is written to choose it: a family stands alone, after its command."""
    return f"{kind} {name}" if kind == FAMILY else f"{key(kind)}={name}"


def key(kind: str) -> str:
    """What a part of a kind is chosen by: ``quantizer``, ``objective.discriminator``."""
    return f"{HOSTS[kind][0]}.{kind}" if kind in HOSTS else kind


def _missing(kind: str, name: str) -> str:
    installed = names(kind)
    lines = [f"{_choice(kind, name)} is not installed{did_you_mean(name, installed)}"]
    lines.append(f"installed: {', '.join(installed) or 'none'}")
    return "\n".join([*lines, *(f"note: {problem}" for problem in problems())])


def _imported(registration: Registration) -> Any:
    try:
        return import_target(registration.target, registration.folder)
    except KeyboardInterrupt:
        raise
    except BaseException as cause:  # a plugin may raise anything at import, SystemExit included
        raise RegistryError(f"{registration} does not import: {blame(cause)}") from cause
