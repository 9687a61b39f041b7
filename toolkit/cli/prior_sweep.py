"""Several priors over one autoencoder: ``toolkit train run=DIR stage=prior prior=A,B -m``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from toolkit.blame import blame
from toolkit.cli import sweeps
from toolkit.cli.config.quote import key_of
from toolkit.errors import ToolkitError


def singles(words: Sequence[str]) -> list[list[str]]:
    """The words of one continuation for each prior. ToolkitError where another word has several values, or none has."""
    overrides = sweeps.parsed(words)
    for override in overrides:
        if override.is_sweep_override() and override.get_key_element() != "prior":
            raise ToolkitError(
                f"{override.input_line}: of one run only prior= takes several values, as each prior is kept under its"
                " name; without run=, -m trains a run for each value"
            )
    swept = [override for override in overrides if override.is_sweep_override()]
    if not swept:
        raise ToolkitError("-m with run=DIR trains several priors over one autoencoder: add prior=NAME,NAME")
    others = [word for word in words if key_of(word) != "prior"]
    return [[*others, f"prior={value}"] for value in sweeps.values(swept[-1])]


def train_each(runs: Sequence[tuple[str, Callable[[], object]]], report: Callable[[str], None]) -> None:
    """Calls one after the other, each with its title; a failure stops none of the others, and is raised at the end."""
    failures: list[Exception] = []
    for title, train in runs:
        report(title)
        try:
            train()
        except Exception as error:
            failures.append(error)
            report(f"{title} failed: {error if isinstance(error, ToolkitError) else blame(error)}")
    if failures:
        raise failures[0]
