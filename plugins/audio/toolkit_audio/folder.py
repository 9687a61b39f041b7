"""Anybody's voices, in folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import final

from toolkit import ToolkitError
from toolkit.dataset import SPLITS
from toolkit_audio.corpus import CorpusDataset
from toolkit_audio.splits import Utterance

SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".wma", ".wv", ".ape", ".amr"),
    *(".aif", ".aiff", ".au", ".caf", ".mka", ".mkv", ".mp4", ".mov", ".webm"),
)


@final
class FolderDataset(CorpusDataset):
    """All files with sound below ``root``, of any kind that FFmpeg decodes; the first folder is the speaker.

    ``root`` holds ``SPEAKER/…`` or ``train/SPEAKER/… val/… test/…``; files in no folder have the speaker's name
    ``unknown``. Names that start with a dot are not seen.
    """

    @classmethod
    def find(cls, root: Path) -> list[Utterance]:
        utterances = sorted(_utterance(path) for path in sound_files(root))
        if not utterances:
            raise ToolkitError(f"{root}: there is no file of sound ({', '.join(SUFFIXES[:5])}, …)")
        named = {each.split for each in utterances} - {None}
        if named and "train" not in named:
            raise ToolkitError(f"{root}: there is {' and '.join(sorted(map(str, named)))} but no train")
        return utterances


def _utterance(path: str) -> Utterance:
    folders = path.split("/")[:-1]
    split = folders.pop(0) if folders and folders[0] in SPLITS else None
    return Utterance(path, folders[0] if folders else "unknown", split)


def sound_files(root: Path) -> Iterator[str]:
    """Paths below a root, by suffix."""
    for parent, folders, names in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = (Path(parent).relative_to(root) / "_").as_posix()[:-1]
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield below + name
