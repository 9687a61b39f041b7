"""A sweep's words as words of single runs: to check it before its first run, to look at it, and to title its runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice, product

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from omegaconf import OmegaConf

from toolkit import registry
from toolkit.cli.config import errors, groups
from toolkit.cli.config.quote import prepare, text
from toolkit.errors import ToolkitError

MOST = 64
"""Runs that are checked or shown."""
LONGEST_TITLE = 80
"""Characters of a folder's name, besides its number."""
LONGEST = 100_000
"""Values that a word may have."""


def checked(words: Sequence[str]) -> list[list[str]]:
    """Single runs in which every value comes once, with the first values of the others.

    At most ``MOST``, and every experiment, as each is a file of its own.
    """
    choices = _choices(words)
    first = [values[0] for values in choices]
    changed = [[*first[:i], value, *first[i + 1 :]] for i, values in enumerate(choices) for value in values[1:]]
    runs = [first, *changed]
    return runs[:MOST] + [run for run in runs[MOST:] if _experiment(run) != _experiment(first)]


def shown(words: Sequence[str]) -> tuple[list[list[str]], int]:
    """The first ``MOST`` runs, every combination of the values as it will be run, and how many there are in all."""
    choices, total = _choices(words), 1
    for values in choices:
        total *= len(values)
    return [list(run) for run in islice(product(*choices), MOST)], total


def untitled(words: Sequence[str]) -> list[str]:
    """Keeps the words that all runs of a sweep share out of the runs' titles."""
    keys = ",".join(text(override.key_or_group) for override in parsed(words) if not override.is_sweep_override())
    return [f"hydra.job.config.override_dirname.exclude_keys=[{keys}]"]


def folder_title(number: int, changed: str) -> str:
    """What a run's folder in a sweep is called: its number, and the values that are its own.

    ``changed``: Hydra's ``hydra.job.override_dirname``, such as ``quantizer=vq,trainer.steps=10``.
    """
    short = re.sub(r"[\w/.]*[/.](?=\w+=)", "", changed)
    words = re.sub(r"[^\w.=+-]+", "_", short, flags=re.ASCII).strip("_.")
    return f"{number}_{words[:LONGEST_TITLE].rstrip('_.')}" if words else str(number)


OmegaConf.register_new_resolver("toolkit_title", folder_title, replace=True)  # conf/train.yaml names runs by it


def values(override: Override) -> list[str]:
    """The values of a word that has several; ToolkitError where they cannot be listed, or there are none."""
    value, group = override.value(), str(override.key_or_group)
    try:
        if isinstance(value, Glob):
            kind = groups.kind_of(group)
            found = value.filter([*(registry.names(kind) if kind else ()), *groups.presets(group)])
        else:
            found = list(islice(override.sweep_string_iterator(), LONGEST + 1))
    except (*errors.COMPOSING, TypeError, ArithmeticError) as error:
        reason = " ".join(str(error).split())
        raise ToolkitError(f"{override.input_line}: its values cannot be listed: {reason}") from error
    if not 0 < len(found) <= LONGEST:
        raise ToolkitError(f"{override.input_line}: this has {'too many' if found else 'no'} values")
    return found


def _choices(words: Sequence[str]) -> list[list[str]]:
    """The single words that each word stands for; a search's, which has no end of values, is left out."""
    return [
        [f"{override.get_key_element()}={value}" for value in values(override)]
        if override.is_discrete_sweep()
        else [str(override.input_line)]
        for override in parsed(words)
        if not override.is_sweep_override() or override.is_discrete_sweep()
    ]


def parsed(words: Sequence[str]) -> list[Override]:
    """The words of a sweep; ToolkitError for one that cannot be read."""
    prepared = prepare(words, multirun=True)
    try:
        overrides: list[Override] = OverridesParser.create().parse_overrides(prepared)
    except errors.COMPOSING as error:
        raise errors.explain(error, prepared) from error
    return overrides


def _experiment(run: Sequence[str]) -> str:
    return next((word for word in run if word.lstrip("+").startswith("experiment=")), "")
