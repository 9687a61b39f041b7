"""What a dataset proposes for a folder of files: an experiment, choice by choice, each with its reason."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Choice(NamedTuple):
    """A line of an experiment."""

    key: str
    """A kind of part, such as ``quantizer``, or an option of the configuration, such as ``quantizer.codebook_size``."""
    value: Any
    """A part's name or the option's value: numbers, strings, lists, True, False or None."""
    reason: str
    """Why, in some words of one line; empty where the option speaks for itself."""


class Proposal(NamedTuple):
    """An experiment for a folder, and what was seen there. See ``toolkit.dataset.Dataset.propose``."""

    contents: str
    """What there is, such as ``3,781 images of 128 x 128 in 10 classes``."""
    files: int
    """How many files the experiment would use: of several datasets' proposals that with the most is taken."""
    choices: tuple[Choice, ...]
    """The parts, the dataset's own among them, and the options."""
    faults: tuple[str, ...] = ()
    """What is wrong with the folder, a sentence each, with what becomes of it."""


def passes(examples: int, batch_size: int, times: int = 30, least: int = 3000, most: int = 100_000) -> int:
    """Steps that see every example so many times, rounded to thousands, within bounds."""
    return max(least, min(most, round(times * examples / batch_size / 1000) * 1000))


def training(
    stage: str, steps: int, batch: int, rate: float, why: str, *, examples: int, pictures: int
) -> tuple[Choice, ...]:
    """The options of ``stage``, ``trainer`` or ``prior_trainer``; ``why`` so many steps.

    ``examples``: of a validation; ``pictures``: how often they are plotted.
    """
    return (
        Choice(f"{stage}.steps", steps, why),
        Choice(f"{stage}.batch_size", batch, ""),
        Choice(f"{stage}.learning_rate", rate, "for this size; a third of it for wide networks"),
        Choice(f"{stage}.schedule", "cosine", "falls to zero at the last step"),
        Choice(f"{stage}.validate_every", steps // 10, ""),
        Choice(f"{stage}.validate_examples", examples, ""),
        Choice(f"{stage}.pictures_every", steps // pictures, ""),
        Choice(f"{stage}.checkpoint_every", 500, "what a kill loses at most"),
    )


def sampling(condition: str, labels: Collection[str], by: str) -> tuple[Choice, ...]:
    """The option that shows the prior a label of each file, and how to sample ``by`` it; none where all have one."""
    if len(labels) < 2:
        return ()
    return (Choice("conditions.prior", [condition], f"sample by {by}: condition.{condition}={min(labels)}"),)


def counted(number: int, what: str) -> str:
    """``1 image``, ``2 images``, ``2 classes``."""
    return f"{number:,} {what if number == 1 else what + ('es' if what.endswith('s') else 's')}"


def unread(failures: Mapping[str, str], root: Path) -> str:
    """The sentence about files that cannot be read, with the first reason; reasons name a file below ``root``."""
    first = next(iter(failures.values())).removeprefix(f"{root}/")
    more = f" (and {len(failures) - 1:,} more)" if len(failures) > 1 else ""
    return f"{counted(len(failures), 'file')} cannot be read, and will be skipped: {first}{more}"


def some(names: list[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def spread(paths: list[str], most: int) -> list[str]:
    """So many of the paths at most, evenly spread."""
    return paths if len(paths) <= most else [paths[i * len(paths) // most] for i in range(most)]
