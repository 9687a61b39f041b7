"""The paths in a run's configuration: absolute, so that a run finds its data from every folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit import hub, registry, schema
from toolkit.config import PartConfig, RunConfig
from toolkit.dataset import Dataset


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """The configuration with ``init``, and the ``path_options`` of the dataset and of what the prior has inside,
    absolute, from the current folder on.

    Those that begin with ``~`` are left as they are: they depend on the user, not on the folder. Runs of the Hub are
    named by the commit that was opened.
    """
    dataset: type[Dataset] = registry.load("dataset", config.dataset.name)
    named = dataset.path_options
    return replace(
        config,
        dataset=replace(config.dataset, options=_absolute(config.dataset.options, named)),
        prior_dataset=_absolute(config.prior_dataset, named),
        init=config.init and _anywhere(config.init),
        prior=config.prior and _of_part("prior", config.prior),
    )


def _of_part(kind: str, part: PartConfig) -> PartConfig:
    """A part with the paths of its options absolute, and those of the parts inside."""
    options = _absolute(part.options, getattr(registry.load(kind, part.name), "path_options", ()))
    for option in schema.signature(kind, part.name).options:
        if option.nested and options.get(option.name):
            inner = PartConfig.read(options[option.name], f"{kind}.{option.name}", "the configuration")
            options[option.name] = _of_part(option.nested, inner).values()
    return PartConfig(part.name, options)


def _absolute(options: Mapping[str, Any], named: tuple[str, ...]) -> dict[str, Any]:
    relative = {key for key in named if isinstance(options.get(key), str) and not options[key].startswith("~")}
    return {key: _anywhere(value) if key in relative else value for key, value in options.items()}


def _anywhere(path: str) -> str:
    return hub.pinned(path) if hub.is_reference(path) else str(Path(path).absolute())
