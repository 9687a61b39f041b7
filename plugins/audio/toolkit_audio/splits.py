"""Utterances, and the lists that say which are trained on."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from toolkit import ToolkitError
from toolkit.dataset import SPLITS


class Utterance(NamedTuple):
    """A file of one speaker's, by its path below the corpus."""

    path: str
    speaker: str
    split: str | None = None
    """Where the corpus itself says."""


def listed(utterances: Iterable[Utterance], folder: Path) -> list[Utterance]:
    """The utterances that ``train.txt``, ``val.txt`` and ``test.txt`` of a folder name, a path without suffix a line.

    ToolkitError where a list is missing that must be there, or names what is not in the corpus.
    """
    known = {os.path.splitext(each.path)[0]: each for each in utterances}
    chosen = []
    for split in SPLITS:
        file = folder / f"{split}.txt"
        if not file.is_file():
            continue
        for line in filter(None, map(str.strip, file.read_text(encoding="utf-8").splitlines())):
            if line not in known:
                raise ToolkitError(f"{file}: names {line}, which is not in the corpus")
            chosen.append(known[line]._replace(split=split))
    if not any(each.split == "train" for each in chosen):
        raise ToolkitError(f"dataset.lists={folder}: there is no train.txt that names an utterance")
    return chosen
