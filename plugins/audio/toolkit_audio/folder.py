"""A user's own recordings, in folders."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, final

from toolkit import ToolkitError
from toolkit.datasets.files import find_files, folder_split, require_train
from toolkit_audio.corpus import CorpusDataset
from toolkit_audio.splits import Utterance

SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".wma", ".wv", ".ape", ".amr"),
    *(".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64", ".sph", ".tta", ".mp2", ".m4b", ".spx"),
    *(".ac3", ".eac3", ".mka", ".mkv", ".mp4", ".mov", ".webm", ".avi", ".flv", ".ts", ".asf", ".3gp"),
)


@final
class FolderDataset(CorpusDataset):
    """All sound files below ``root``, in any format that FFmpeg decodes; the first folder is the speaker.

    ``root`` contains ``SPEAKER/…`` or ``train/SPEAKER/… val/… test/…``; the speaker of files outside a folder is
    ``unknown``. Names that start with a dot are ignored.
    """

    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES

    @classmethod
    def find(cls, root: Path) -> list[Utterance]:
        utterances = sorted(_utterance(path) for path in find_files(root, SUFFIXES))
        if not utterances:
            raise ToolkitError(f"{root}: no sound files ({', '.join(SUFFIXES[:5])}, …)")
        require_train(root, (utterance.split for utterance in utterances))
        return utterances


def _utterance(path: str) -> Utterance:
    split = folder_split(path)
    folders = path.split("/")[1 if split else 0 : -1]
    return Utterance(path, folders[0] if folders else "unknown", split)
