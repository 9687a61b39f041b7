"""LibriSpeech: English read aloud (Panayotov et al. 2015)."""

from __future__ import annotations

from pathlib import Path
from typing import final

from toolkit import ToolkitError
from toolkit_audio.corpus import CorpusDataset
from toolkit_audio.splits import Utterance

SPLITS = {"train": "train", "dev": "val", "test": "test"}
"""By the first word of a folder's name."""


@final
class LibriSpeechDataset(CorpusDataset):
    """The LibriSpeech corpus, ``train-clean-100/SPEAKER/CHAPTER/….flac`` and so on.

    ``root`` contains these folders, or the folder ``LibriSpeech`` with them. ``train-… dev-… test-…`` are the splits if
    there is a train folder; otherwise all files are split. Speakers are named by their numbers.
    """

    @classmethod
    def find(cls, root: Path) -> list[Utterance]:
        folder = root / "LibriSpeech" if (root / "LibriSpeech").is_dir() else root
        paths = sorted(folder.glob("*/*/*/*.flac"))
        if not paths:
            raise ToolkitError(
                f"{root.absolute()}: LibriSpeech is not there, no train-clean-100/SPEAKER/CHAPTER/*.flac or the like;"
                " set dataset.root=FOLDER"
            )
        parts = [path.relative_to(folder).parts for path in paths]
        whole = any(part[0].startswith("train") for part in parts)
        return [
            Utterance(path.relative_to(root).as_posix(), part[1], _split(part[0]) if whole else None)
            for path, part in zip(paths, parts, strict=True)
        ]


def _split(folder: str) -> str:
    return SPLITS.get(folder.partition("-")[0], "train")
