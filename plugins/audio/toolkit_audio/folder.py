"""A user's own recordings, in folders."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, final

from toolkit import ToolkitError
from toolkit.datasets.files import find_files, folder_split, require_train
from toolkit.proposal import Proposal
from toolkit_audio.corpus import CorpusDataset
from toolkit_audio.proposing import propose
from toolkit_audio.splits import Utterance

SOUNDS = (
    *(".wav", ".wave", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".wma", ".wv", ".ape", ".amr", ".awb"),
    *(".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64", ".sph", ".nist", ".voc", ".gsm", ".spx"),
    *(".mp1", ".mp2", ".mpga", ".mpc", ".m4b", ".m4r", ".adts", ".tta", ".shn", ".dsf", ".dff", ".ra", ".rm"),
    *(".ac3", ".eac3", ".dts", ".mlp", ".thd", ".mka", ".3ga"),
)
FILMS = (
    *(".mkv", ".mp4", ".m4v", ".mov", ".webm", ".avi", ".flv", ".f4v", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob"),
    *(".wmv", ".asf", ".ogv", ".ogx", ".3gp", ".3g2", ".nut"),
)
"""Of which the sound is read."""
SUFFIXES = (*SOUNDS, *FILMS)


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

    @classmethod
    def propose(cls, root: Path) -> Proposal | None:
        """Of sound files alone: a folder of films is not taken for one of sounds."""
        if not find_files(root, SOUNDS):
            return None
        return propose(root, [utterance for utterance in cls.find(root) if utterance.path.lower().endswith(SOUNDS)])


def _utterance(path: str) -> Utterance:
    split = folder_split(path)
    folders = path.split("/")[1 if split else 0 : -1]
    return Utterance(path, folders[0] if folders else "unknown", split)
