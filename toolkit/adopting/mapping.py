"""A family's entries over actual tensors: there to here and back, with every tensor of both sides accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from toolkit.blame import blame
from toolkit.errors import ToolkitError
from toolkit.family import Entry, Family
from toolkit.runs.tensors import Shape

SHOWN = 3
"""Names of tensors in a message."""


@contextmanager
def of_family(family: Family, what: str) -> Iterator[None]:
    """ToolkitError where a family fails on what a stranger has written."""
    try:
        yield
    except ToolkitError:
        raise
    except Exception as e:
        raise ToolkitError(f"{what}: {type(family).__name__} cannot take its settings: {blame(e)}") from e


def renamed(family: Family, names: Iterable[str]) -> dict[str, str]:
    """Names of the family's layout to the file's own. ToolkitError where two of the file's are one of the layout's."""
    own: dict[str, str] = {}
    for name in names:
        layout = family.renamed(name)
        if layout in own:
            raise ToolkitError(f"{own[layout]} and {name} are both {layout} in this family")
        own[layout] = name
    return own


def check_names(entries: Sequence[Entry], ours: Iterable[str]) -> None:
    """ToolkitError where a name is in two entries, or one of ours is in none: faults of the family."""
    theirs, own = ([name for entry in entries for name in getattr(entry, side)] for side in ("theirs", "ours"))
    for side, names in (("theirs", theirs), ("ours", own)):
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ToolkitError(f"this family has two entries with {_named(twice)} among {side}")
    known, held = set(ours), set(own)
    lacking, strange = sorted(known - held), sorted(held - known)
    if lacking or strange:
        parts = [f"no entry for {_named(lacking)}"] * bool(lacking) + [f"entries for {_named(strange)}"] * bool(strange)
        raise ToolkitError(f"this family has {' and '.join(parts)} of the model that its own words compose")


def to_ours(
    entries: Sequence[Entry], tensors: Mapping[str, Tensor], own: Mapping[str, Shape], what: str
) -> dict[str, Tensor]:
    """Our tensors, in our types, from theirs without those that are skipped.

    ToolkitError naming what is missing, unknown, or of another shape.
    """
    wanted = {name for entry in entries for name in entry.theirs}
    missing = sorted(wanted - {*tensors})
    unknown = sorted({*tensors} - wanted)
    made: dict[str, Tensor] = {}
    wrong: list[str] = []
    for entry in entries:
        if not any(name in missing for name in entry.theirs):
            made |= _made(entry, tensors, own, wrong)
    problems = [
        *_counted(missing, "missing"),
        *_counted(unknown, "unknown"),
        *_counted(wrong, "of another shape"),
        *_counted([name for name in made if not made[name].isfinite().all()], "NaN or infinite"),
    ]
    if problems:
        raise ToolkitError(f"{what} is not of this family: of {len(wanted | {*tensors})} tensors {'; '.join(problems)}")
    return made


def to_theirs(entries: Sequence[Entry], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors from ours, each with memory of its own."""
    made: dict[str, Tensor] = {}
    for entry in entries:
        values = entry.form.there([own[name].detach().cpu() for name in entry.ours])
        made |= zip(entry.theirs, (value.clone().contiguous() for value in values), strict=True)
    return made


def _made(entry: Entry, tensors: Mapping[str, Tensor], own: Mapping[str, Shape], wrong: list[str]) -> dict[str, Tensor]:
    """An entry's of ours, in our types; ``wrong`` gets what does not fit."""
    given = [_in_float32(tensors[name]) for name in entry.theirs]
    try:
        values = [value.detach() for value in entry.form.here(given)]
        made = dict(zip(entry.ours, values, strict=True))
    except (RuntimeError, ValueError, IndexError, TypeError) as e:
        wrong.append(f"{entry.theirs[0]} {tuple(given[0].shape)}: {str(e).splitlines()[0]}" if given else str(e))
        return {}
    for name, value in made.items():
        if tuple(value.shape) != own[name].shape:
            there = ", ".join(f"{n} {tuple(t.shape)}" for n, t in zip(entry.theirs, given, strict=True))
            wrong.append(f"{there} for {name} {own[name].shape}")
            return {}
    return {name: value.to(own[name].dtype).clone() for name, value in made.items()}


def _in_float32(value: Any) -> Any:
    """Half precision as float32: what a form computes is not rounded."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _counted(names: Sequence[str], what: str) -> list[str]:
    if not names:
        return []
    return [f"{len(names)} {'is' if len(names) == 1 else 'are'} {what} ({_named(names)})"]


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + ", …" * (len(names) > SHOWN)
