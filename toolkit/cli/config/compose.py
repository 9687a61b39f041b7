"""Words of the command line to one plain, checked configuration, without any of Hydra's types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import hydra
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from toolkit import registry
from toolkit.cli.config import errors, groups, hydra_settings, source
from toolkit.cli.config.check import validate
from toolkit.cli.config.quote import key_of, prepare, text
from toolkit.config import RunConfig
from toolkit.errors import ToolkitError
from toolkit.options import TRAINERS
from toolkit.registry import KINDS

VERSION: dict[str, str] = {} if hydra.__version__ >= "1.4" else {"version_base": "1.3"}

_CHOSEN = (*KINDS, *TRAINERS, "experiment", "extra")
"""What has a choice, if only that of nothing."""


@dataclass(frozen=True)
class Composed:
    """What the words of a command ask for.

    ``values``: plain dict, list, number, string, bool and None, in a fixed order. Every kind is a key: a dict with
    ``name`` and the options, None where none is chosen; a list, such as ``metric``, is a dict of such dicts by name.
    """

    values: dict[str, Any]
    notices: tuple[str, ...] = ()
    """What the user should know, a line each: options that were dropped or are new since."""
    experiment: str | None = None
    run_dir: str | None = None
    """Where YAML says that the run is written, if it does."""
    sweep_dir: str | None = None
    """The same of a sweep."""

    @property
    def config(self) -> RunConfig:
        """The values as one object; they must be complete."""
        return RunConfig.read(self.values)


def compose(words: Sequence[str], *, folder: str | None = None, complete: bool = True) -> Composed:
    """The configuration that the words ask for, validated.

    ``folder`` holds further YAML files. Unless ``complete``, parts and values may be missing. ToolkitError for a
    mistake in the words or in YAML.
    """
    overrides = prepare(words)
    composed = composed_node(overrides, folder)
    settings = composed.hydra
    run_dir, sweep_dir = (hydra_settings.given_folder(settings, _usual(), section) for section in ("run", "sweep"))
    composed.pop("hydra")
    config, notices = validate(composed, [key_of(word) for word in overrides], complete)
    return Composed(config, notices, experiment_of(settings), run_dir, sweep_dir)


def experiment_of(settings: Any) -> str | None:
    """The experiment that was chosen, by what Hydra knows of a composition."""
    name: str | None = settings.runtime.choices.get("experiment")
    return name if name != "null" else None


def composed_node(overrides: Sequence[str], folder: str | None) -> DictConfig:
    """What the words compose, Hydra's own settings included, of which YAML has set no more than it may."""
    for word in overrides:
        if word.startswith("+") and not word.startswith("++") and key_of(word) in _CHOSEN:
            raise errors.appended(word)
        _one_owner(*word.partition("=")[::2])
    if folder and not any(key_of(word) == "hydra.searchpath" for word in overrides):
        overrides = [*overrides, f"hydra.searchpath=[{text(f'file://{folder}')}]"]
    try:
        with source.installed(), _own_hydra():
            composed = hydra.compose("train", overrides=list(overrides), return_hydra_config=True)
        hydra_settings.check(composed.hydra, _usual(), overrides)
    except errors.COMPOSING as error:
        raise errors.explain(error, overrides) from error
    OmegaConf.set_struct(composed, False)
    return composed


@cache
def _usual() -> Mapping[str, Any]:
    """Hydra's own settings where nothing is chosen."""
    nothing = [*(f"~{group}" for group in ("quantizer", "objective", "prior", *TRAINERS)), "metric=[]", "logger=[]"]
    with source.installed(), _own_hydra():
        composed = hydra.compose("train", overrides=nothing, return_hydra_config=True)
    return hydra_settings.plain(composed.hydra)


@contextmanager
def _own_hydra() -> Iterator[None]:
    """Hydra over our own YAML; one that this process had set up is restored afterwards."""
    theirs = GlobalHydra.instance()
    before, theirs.hydra = theirs.hydra, None
    try:
        with initialize_config_module("toolkit.conf", job_name="train", **VERSION):
            yield
    finally:
        GlobalHydra.instance().hydra = before


def _one_owner(group: str, name: str) -> None:
    """ToolkitError where more than one package provides a YAML file of this name, or none is named."""
    kind = groups.kind_of(group)
    if kind and name == "{}":
        raise ToolkitError(f"{group}={{}}: this sets nothing; a part is chosen by its name, {group}=NAME")
    if group != "experiment" and (kind is None or name in registry.names(kind)):
        return
    owners = groups.claims(group, name)
    if len(owners) > 1:
        raise ToolkitError(
            f"{group}={name} is provided by {' and '.join(owners)}: rename yours, or uninstall one of them"
        )
