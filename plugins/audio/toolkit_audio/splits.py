"""Which utterances are trained on, and which are held out."""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from toolkit import ToolkitError
from toolkit.dataset import SPLITS

HELD_OUT = {"test": 5, "val": 5}
"""Percent of all that is set aside."""


class Utterance(NamedTuple):
    """A file of one speaker's, by its path below the corpus."""

    path: str
    speaker: str
    split: str | None = None
    """Where the corpus itself says."""


def set_aside(utterances: Iterable[Utterance], by_speaker: bool) -> dict[str, list[Utterance]]:
    """The splits that the corpus names, and those it lacks, taken from its training utterances by a hash.

    Of the path, so that an utterance stays in its split when others come and go; or of the speaker, whose utterances
    then stay together.
    """
    made: dict[str, list[Utterance]] = {split: [] for split in SPLITS}
    for utterance in utterances:
        made[utterance.split or "train"].append(utterance)
    for split in [split for split in HELD_OUT if not made[split]]:
        pool = made["train"]
        chosen = _chosen({_key(each, by_speaker) for each in pool}, split)
        made[split] = [each for each in pool if _key(each, by_speaker) in chosen]
        made["train"] = [each for each in pool if _key(each, by_speaker) not in chosen]
    return made


def _key(utterance: Utterance, by_speaker: bool) -> str:
    return utterance.speaker if by_speaker else utterance.path


def _chosen(keys: set[str], split: str) -> set[str]:
    """Keys whose hash falls into the split's percent; of few keys at least one, but never all."""
    hashed = {key: int.from_bytes(sha256(f"{split}/{key}".encode("utf-8", "surrogateescape")).digest()) for key in keys}
    chosen = {key for key, number in hashed.items() if number % 100 < HELD_OUT[split]}
    if not chosen and len(keys) > 1:
        chosen = {min(keys, key=hashed.__getitem__)}
    return chosen if len(chosen) < len(keys) else set(sorted(chosen)[1:])


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
