"""Anybody's voices, in folders."""

from __future__ import annotations

from pathlib import Path
from typing import final

from toolkit import ToolkitError
from toolkit.datasets.files import find_files, folder_split, require_train
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
        utterances = sorted(_utterance(path) for path in find_files(root, SUFFIXES))
        if not utterances:
            raise ToolkitError(f"{root}: there is no file of sound ({', '.join(SUFFIXES[:5])}, …)")
        require_train(root, (each.split for each in utterances))
        return utterances


def _utterance(path: str) -> Utterance:
    split = folder_split(path)
    folders = path.split("/")[1 if split else 0 : -1]
    return Utterance(path, folders[0] if folders else "unknown", split)
