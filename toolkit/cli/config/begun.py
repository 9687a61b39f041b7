"""What a run has otherwise than the experiment that its words began with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from toolkit.cli.config.compose import compose
from toolkit.cli.config.quote import key_of
from toolkit.config import Experiment, by_key
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


def continued(values: Mapping[str, Any], saved: Mapping[str, Any], typed: Sequence[str]) -> dict[str, Any]:
    """The values with which a saved run goes on, with the experiment that it began with.

    ``typed``: the keys of the command's words. Of others what is new or gone since the run was saved is no change.
    ToolkitError where what is saved of the experiment is damaged.
    """
    experiment = Experiment.read(saved.get("experiment"), "the saved configuration")
    if experiment is None:
        return dict(values)
    before = {key: value for key, value in saved.items() if key != "experiment"}
    own, both = experiment.instead_of, by_key(before).keys() & by_key(values).keys()
    changed = {
        key: value
        for key, value in instead_of(before, values).items()
        if (key in both or _within(key, typed)) and not _within(key, own)
    }
    kept = {key: value for key, value in own.items() if not _within(key, changed)}
    return {**values, "experiment": replace(experiment, instead_of=changed | kept).values()}


def instead_of(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Of a configuration the values that another one has otherwise, by key: of a part that was replaced, its name."""
    theirs, ours = by_key(base), by_key(values)
    found: dict[str, Any] = {}
    for key in dict.fromkeys([*theirs, *ours]):
        if theirs.get(key) != ours.get(key) and not _within(key, found):
            found[key] = theirs.get(key)
    return found


def _within(key: str, others: Iterable[str]) -> bool:
    """Whether a key is one of these, or below one, as a part's options are below its name."""
    return any(key == other or key.startswith(f"{other}.") for other in others)
