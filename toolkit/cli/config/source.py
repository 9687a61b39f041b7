"""The registry as a Hydra config source, and the plugins' YAML folders on its search path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin

from toolkit import registry
from toolkit.cli.config.groups import kind_of, nested
from toolkit.cli.config.nodes import component_node, trainer_node
from toolkit.options import TRAINERS
from toolkit.registry import KINDS, LISTS

DEFAULT = "default"


_composing = False


@contextmanager
def installed() -> Iterator[None]:
    """Hydra sees the registry in the block; other uses of Hydra in this process are left alone."""
    global _composing
    for plugin in (RegistrySource, PluginFolders):
        if plugin not in Plugins.instance().discover(plugin):
            Plugins.instance().register(plugin)
    before, _composing = _composing, True
    try:
        yield
    finally:
        _composing = before


class RegistrySource(ConfigSource):
    """Offers ``encoder=NAME`` because the registry has the name; its node is built when chosen."""

    @staticmethod
    def scheme() -> str:
        return "toolkit"

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        path = config_path.strip("/")
        return (
            path in ("", "experiment", "extra", *TRAINERS) or kind_of(path) is not None
        )  # even where no package provides one

    def is_config(self, config_path: str) -> bool:
        group, name = _split(config_path)
        kind = kind_of(group)
        return name in registry.names(kind) if kind else group in TRAINERS and name == DEFAULT

    def load_config(self, config_path: str) -> ConfigResult:
        group, name = _split(config_path)
        kind = kind_of(group)
        node = component_node(kind, name) if kind else trainer_node(group)
        # Each part of a list has its own name as its key.
        header = {"package": f"{group}.{name}" if group in LISTS else None}
        return ConfigResult(provider="registry", path=f"toolkit://{config_path}", config=node, header=header)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        path = config_path.strip("/")
        groups, configs = _listed(path)
        if results_filter == ObjectType.GROUP:
            return groups
        return configs if results_filter == ObjectType.CONFIG else sorted({*groups, *configs})


class PluginFolders(SearchPathPlugin):
    """Plugins' YAML folders, as files: a ``pkg://`` path would import the plugin, and torch with it.

    They come after the registry: no file can replace a registered part.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if not _composing:
            return
        search_path.append(provider="registry", path="toolkit://registry")
        for distribution, folder in registry.conf_folders():
            search_path.append(provider=distribution, path=f"file://{folder}")


def _split(config_path: str) -> tuple[str, str]:
    group, _, name = config_path.removesuffix(".yaml").strip("/").rpartition("/")
    return group, name


def _listed(path: str) -> tuple[list[str], list[str]]:
    if path == "":
        return [*KINDS, *TRAINERS], []
    if path in TRAINERS:
        return [], [DEFAULT]
    kind: Any = kind_of(path)
    if kind is None:
        return [], []
    # A quantizer in a quantizer in a …: one level is listed, any is resolved.
    return sorted(nested(kind)) if path == kind else [], list(registry.names(kind))
