"""The paths in a run's configuration: absolute, so that a run finds its data from every folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit import hub, registry
from toolkit.config import RunConfig
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
        prior=config.prior and replace(config.prior, options=_inside("prior", config.prior.options)),
    )


def _inside(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a part with those of the parts inside; an option is called as the kind, or has the part's own."""
    return {name: _of_part(name if name in registry.PARTS else kind, value) for name, value in options.items()}


def _of_part(kind: str, value: Any) -> Any:
    if not (isinstance(value, Mapping) and isinstance(value.get("name"), str)):
        return value
    named = getattr(registry.load(kind, value["name"]), "path_options", ())
    return _inside(kind, _absolute(value, named))


def _absolute(options: Mapping[str, Any], named: tuple[str, ...]) -> dict[str, Any]:
    relative = {key for key in named if isinstance(options.get(key), str) and not options[key].startswith("~")}
    return {key: _anywhere(value) if key in relative else value for key, value in options.items()}


def _anywhere(path: str) -> str:
    return hub.pinned(path) if hub.is_reference(path) else str(Path(path).absolute())
