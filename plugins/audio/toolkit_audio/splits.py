"""Utterances, and lists of the utterances of each split."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from toolkit import ToolkitError
from toolkit.dataset import SPLITS


class Utterance(NamedTuple):
    """A file of one speaker, by its path below the corpus."""

    path: str
    speaker: str
    split: str | None = None
    """The corpus's own split, if it has one."""


def listed(utterances: Iterable[Utterance], folder: Path) -> list[Utterance]:
    """The utterances listed in a folder's ``train.txt``, ``val.txt`` and ``test.txt``, a path without suffix per line.

    ToolkitError if there is no training list, or a list names a file that is not in the corpus.
    """
    known = {os.path.splitext(utterance.path)[0]: utterance for utterance in utterances}
    chosen = []
    for split in SPLITS:
        file = folder / f"{split}.txt"
        if not file.is_file():
            continue
        for line in filter(None, map(str.strip, file.read_text(encoding="utf-8").splitlines())):
            if line not in known:
                raise ToolkitError(f"{file}: names {line}, which is not in the corpus")
            chosen.append(known[line]._replace(split=split))
    if not any(utterance.split == "train" for utterance in chosen):
        raise ToolkitError(f"dataset.lists={folder}: no train.txt that names an utterance")
    return chosen
