"""Utterances, and lists of the utterances of each split."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from toolkit import ToolkitError
from toolkit.dataset import SPLITS
from toolkit.datasets.files import split_named
from toolkit_audio.texts import read_text


class Utterance(NamedTuple):
    """A file of one speaker, by its path below the corpus."""

    path: str
    speaker: str
    split: str | None = None
    """The corpus's own split, if it has one."""


def listed(utterances: Iterable[Utterance], folder: Path) -> list[Utterance]:
    """The utterances listed in a folder's ``train.txt``, ``val.txt`` and ``test.txt``, a path per line.

    Paths are without suffix, or with it where two files differ in nothing else. The lists may have other words for a
    split, such as ``dev.txt``. ToolkitError if there is no training list, two lists are of one split, two splits list
    one file, or a list names a file that is not in the corpus, or two.
    """
    known: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        known.setdefault(os.path.splitext(utterance.path)[0], []).append(utterance)
        known.setdefault(utterance.path, []).append(utterance)
    chosen: dict[str, list[Utterance]] = {}
    for split, file in _lists(folder).items():
        for line in filter(None, map(str.strip, _text(file).splitlines())):
            utterance = _one(known.get(line, []), line, file)
            before = chosen.setdefault(utterance.path, [])
            if before and before[0].split != split:
                raise ToolkitError(f"{file}: names {line}, and so does the list for {before[0].split}; keep it in one")
            before.append(utterance._replace(split=split))
    named = [utterance for places in chosen.values() for utterance in places]
    if not any(utterance.split == "train" for utterance in named):
        raise ToolkitError(f"dataset.lists={folder}: no train.txt that names an utterance")
    return named


def _lists(folder: Path) -> dict[str, Path]:
    """The lists in a folder, by split."""
    lists: dict[str, Path] = {}
    for file in sorted(folder.glob("*.txt")):
        split = split_named(file.stem)
        if split and file.is_file():
            if split in lists:
                raise ToolkitError(f"{folder}: {lists[split].name} and {file.name} are both for {split}; remove one")
            lists[split] = file
    return {split: lists[split] for split in SPLITS if split in lists}


def _text(file: Path) -> str:
    try:
        return read_text(file)
    except (OSError, ValueError) as error:
        raise ToolkitError(f"{file}: cannot be read ({error})") from error


def _one(utterances: list[Utterance], line: str, file: Path) -> Utterance:
    if not utterances:
        raise ToolkitError(f"{file}: names {line}, which is not in the corpus")
    if len(utterances) > 1:
        names = " and ".join(utterance.path for utterance in utterances)
        raise ToolkitError(f"{file}: names {line}, which is {names}; write it with its suffix, or remove one file")
    return utterances[0]
