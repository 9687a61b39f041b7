"""What a run has otherwise than the experiment that its words began with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.cli.config.compose import compose
from toolkit.cli.config.quote import key_of
from toolkit.config import by_key
from toolkit.errors import ToolkitError


def begun(
    values: Mapping[str, Any], experiment: str | None, words: Sequence[str], folder: str | None = None
) -> dict[str, Any]:
    """A run's composed values, with the experiment that they began with, if they did.

    ``words``: the command's, of which some may say where YAML is looked for, as ``folder`` does.
    """
    if experiment is None:
        return dict(values)
    places = [word for word in words if key_of(word) == "hydra.searchpath"]
    try:
        alone = compose([f"experiment={experiment}", *places], folder=folder, complete=False)
    except ToolkitError:  # one that composes with other words only has no values of its own
        return dict(values)
    return {**values, "experiment": {"name": experiment, "instead_of": instead_of(alone.values, values)}}


def continued(values: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    """The values with which a saved run goes on, with the experiment that it began with."""
    experiment = saved.get("experiment")
    if not isinstance(experiment, Mapping):
        return dict(values)
    before = {key: value for key, value in saved.items() if key != "experiment"}
    known = by_key(before)  # others are options that are new since
    changed = {key: value for key, value in instead_of(before, values).items() if key in known}
    return {**values, "experiment": {**experiment, "instead_of": changed | dict(experiment.get("instead_of") or {})}}


def instead_of(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Of a configuration the values that another one has otherwise, by key: of a part that was replaced, its name."""
    theirs, ours = by_key(base), by_key(values)
    found: dict[str, Any] = {}
    for key in dict.fromkeys([*theirs, *ours]):
        if theirs.get(key) != ours.get(key) and not any(key.startswith(f"{part}.") for part in found):
            found[key] = theirs.get(key)
    return found
