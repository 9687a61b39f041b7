"""Conditions as the user writes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor

from toolkit.errors import ToolkitError
from toolkit.spec import Condition

FILE = "@"
"""Before the name of a file of texts: any words may be a text, and the name of a file, too."""
_BETWEEN = re.compile(r",(?![^\[]*\])")
"""A comma outside of brackets."""


def values(condition: Condition, text: str, n: int, length: int) -> Tensor:
    """A condition of n examples whose first axis has this length: ``(n,)``, ``(n, steps)``, …

    ``LABEL`` holds for all examples; ``LABEL,LABEL,…`` are repeated over them in turn. Where a condition has a value
    per step, an item may also be ``[LABEL,LABEL,…]``, one per step, or a file with one per line, of which the first are
    used; where its values are numbers, a file with a row of them per line. The first line may be a heading: the
    condition's name, or words above numbers. A ``.npy`` array is such a file, too. Of texts, see ``texts``.
    ToolkitError for anything else.
    """
    if condition.text:
        return texts(condition, _listed_texts(condition, text), n)
    items = [_item(condition, part, length) for part in _parts(condition, text)]
    if any(item.ndim > condition.real for item in items):  # one has a value per step: so must all
        steps = condition.steps(length)
        items = [item if item.ndim > condition.real else item.expand(steps, *item.shape) for item in items]
    return torch.stack([items[i % len(items)] for i in range(n)])


def texts(condition: Condition, given: Sequence[str], n: int) -> Tensor:
    """The values ``(n, size)`` of some texts, which are repeated over the examples in turn."""
    if not given or not all(isinstance(text, str) for text in given):
        raise ToolkitError(f"condition.{condition.name}={list(given)!r}: give one text, or a list of texts")
    try:
        values = [condition.encoded(text) for text in given]
    except ValueError as e:
        raise ToolkitError(str(e)) from e
    return torch.stack([values[i % len(values)] for i in range(n)])


def _listed_texts(condition: Condition, text: str) -> list[str]:
    """``TEXT`` as it is, ``[TEXT, "TEXT", …]`` as YAML has lists, or the lines of a file as ``@FILE``."""
    if text.startswith("[") and text.endswith("]"):
        try:
            listed: list[str] = yaml.load(text, yaml.BaseLoader)  # which takes no word for a number or a truth
        except yaml.YAMLError as e:
            raise ToolkitError(f"condition.{condition.name}={text}: no list of texts: {_first_line(e)}") from e
        return listed
    if text.startswith(FILE):
        if text == FILE:
            raise ToolkitError(f"condition.{condition.name}={FILE}: the name of a file is missing behind it")
        return _lines_of(condition, Path(text.removeprefix(FILE)))
    if text.endswith(".txt") and " " not in text:
        raise ToolkitError(
            f"condition.{condition.name}={text}: is it a file's name? {FILE}{text} is the texts in the file, and"
            f" [{text}] this text"
        )
    return [text]


def _lines_of(condition: Condition, path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n")]
    except (OSError, ValueError) as e:
        raise ToolkitError(f"condition.{condition.name}={FILE}{path}: not a file of texts: {e}") from e
    lines = lines[:-1] if lines[-1] == "" else lines
    if not lines:
        raise ToolkitError(f"condition.{condition.name}={FILE}{path}: the file is empty")
    return lines


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _parts(condition: Condition, text: str) -> list[str]:
    if text in condition.labels or _is_file(condition, text):
        return [text]
    return [part.strip() for part in (_BETWEEN.split(text) if condition.per_step else text.split(","))]


def _is_file(condition: Condition, text: str) -> bool:
    return (condition.per_step or condition.real) and text not in condition.labels and Path(text).is_file()


def _item(condition: Condition, text: str, length: int) -> Tensor:
    """``()`` or, of real values, ``(size,)``; ``(steps, …)`` where there is a value per step."""
    option, steps = f"condition.{condition.name}={text}", condition.steps(length)
    if _is_file(condition, text):
        return _read(condition, Path(text), steps)
    if condition.real:
        raise ToolkitError(f"{option}: no such file; give a text file of numbers, {condition.size} per line")
    listed = re.fullmatch(r"\[(.*)\]", text) if condition.per_step and text not in condition.labels else None
    if listed is None:
        return _index(condition, text)
    words = [word.strip() for word in listed[1].split(",")]
    if len(words) != steps:
        raise ToolkitError(f"{option}: {_plural(len(words), 'label')} for {_plural(steps, 'step')}: give one for each")
    return torch.stack([_index(condition, word) for word in words])


def _index(condition: Condition, text: str) -> Tensor:
    try:
        return torch.tensor(condition.index(text))
    except ValueError as e:
        raise ToolkitError(f"{e}{'; nor is there such a file' if condition.per_step else ''}") from e


def _read(condition: Condition, path: Path, steps: int) -> Tensor:
    """A file's first lines: a label on each, or a row of numbers."""
    wanted = steps if condition.per_step else 1
    option = f"condition.{condition.name}={path}"
    try:
        lines = _lines(path)
    except (OSError, ValueError) as e:
        raise ToolkitError(f"{option}: not a file of labels or numbers: {e}") from e
    if lines and (lines[0] == condition.name or (condition.real and not any(map(_is_number, _words(lines[0]))))):
        lines = lines[1:]
    if len(lines) < wanted:
        raise ToolkitError(
            f"{option}: it has {_plural(len(lines), 'line')} for {_plural(wanted, 'step')}: give one for each"
        )
    rows = []
    for number, line in enumerate(lines[:wanted], 1):
        try:
            rows.append(_numbers(condition, line) if condition.real else torch.tensor(condition.index(line)))
        except ValueError as e:
            raise ToolkitError(f"{path}, line {number}: {e}") from e
    return torch.stack(rows) if condition.per_step else rows[0]


def _lines(path: Path) -> list[str]:
    if path.suffix != ".npy":
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        return [line for line in lines if line]
    try:
        rows = np.lib.format.open_memmap(path, mode="r").tolist()  # which allocates nothing that the file does not hold
    except OverflowError as e:
        raise ValueError(str(e)) from e
    if not isinstance(rows, list):
        raise ValueError("it holds one number, not a row for each step")
    return [" ".join(map(str, row)) if isinstance(row, list) else str(row) for row in rows]


def _numbers(condition: Condition, line: str) -> Tensor:
    words = _words(line)
    if len(words) != condition.size or not all(map(_is_number, words)):
        raise ValueError(f"condition.{condition.name} has {_plural(condition.size, 'number')} per line, not {line!r}")
    return torch.tensor([float(word) for word in words])


def _words(line: str) -> list[str]:
    return line.replace(",", " ").replace(";", " ").split()


def _is_number(word: str) -> bool:
    try:
        return isfinite(float(word))
    except ValueError:
        return False


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
