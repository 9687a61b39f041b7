"""A user's own recordings, in folders."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, final

from toolkit import ToolkitError
from toolkit.datasets.files import find_files, folder_split, require_train
from toolkit_audio.corpus import CorpusDataset
from toolkit_audio.splits import Utterance

SUFFIXES = (
    *(".wav", ".wave", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".wma", ".wv", ".ape", ".amr", ".awb"),
    *(".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64", ".sph", ".nist", ".voc", ".gsm", ".spx"),
    *(".mp1", ".mp2", ".mpga", ".mpc", ".m4b", ".m4r", ".adts", ".tta", ".shn", ".dsf", ".dff", ".ra", ".rm"),
    *(".ac3", ".eac3", ".dts", ".mlp", ".thd", ".mka", ".mkv", ".mp4", ".m4v", ".mov", ".webm", ".avi", ".flv", ".f4v"),
    *(".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob", ".wmv", ".asf", ".ogv", ".ogx", ".3gp", ".3ga", ".3g2", ".nut"),
)


@final
class FolderDataset(CorpusDataset):
    """All sound files below ``root``, in any format that FFmpeg decodes; the first folder is the speaker.

    ``root`` contains ``SPEAKER/…`` or ``train/SPEAKER/… val/… test/…`` (or ``Training``, ``valid``, ``dev`` and the
    like); the speaker of files outside a folder is ``unknown``. Linked folders are entered once. What is passed over,
    such as names that start with a dot and files with other suffixes, is counted in the log.
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
