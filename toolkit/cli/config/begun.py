"""What a run has otherwise than the experiment that its words began with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from toolkit.cli.config.compose import compose
from toolkit.cli.config.quote import key_of
from toolkit.config import Experiment, by_key, instead_of, within
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
    own = instead_of(by_key(alone.values), by_key(values))
    return {**values, "experiment": {"name": experiment, "instead_of": own}}


def continued(values: Mapping[str, Any], saved: Mapping[str, Any], typed: Sequence[str]) -> dict[str, Any]:
    """The values with which a saved run goes on, with the experiment that it began with.

    ``typed``: the keys of the command's words. Of others what is new or gone since the run was saved is no change.
    ToolkitError where what is saved of the experiment is damaged.
    """
    experiment = Experiment.read(saved.get("experiment"), "the saved configuration")
    if experiment is None:
        return dict(values)
    before = {key: value for key, value in saved.items() if key != "experiment"}
    theirs, ours, own = by_key(before), by_key(values), experiment.instead_of
    changed = {
        key: value
        for key, value in instead_of(theirs, ours).items()
        if ((key in theirs and key in ours) or within(key, typed)) and not within(key, own)
    }
    kept = {key: value for key, value in own.items() if not within(key, changed)}
    return {**values, "experiment": replace(experiment, instead_of=changed | kept).values()}
