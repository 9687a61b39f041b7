"""VCTK: 110 English speakers (Yamagishi et al. 2019)."""

from __future__ import annotations

from pathlib import Path
from typing import final

from toolkit import ToolkitError
from toolkit_audio.corpus import CorpusDataset
from toolkit_audio.splits import Utterance

LAYOUTS = {"wav48_silence_trimmed": "*_mic1.flac", "wav48": "*.wav"}
"""The folder with the sound, in version 0.92 and before it, and which of its files are read."""


@final
class VCTKDataset(CorpusDataset):
    """The VCTK corpus in either layout: ``wav48/p225/p225_001.wav``, or ``wav48_silence_trimmed/…_mic1.flac``.

    ``root`` contains that folder. The first of two microphones is read. Speakers are named by their folders.
    """

    @classmethod
    def find(cls, root: Path) -> list[Utterance]:
        for folder, pattern in LAYOUTS.items():
            paths = sorted((root / folder).glob(f"*/{pattern}"))
            if paths:
                return [Utterance(path.relative_to(root).as_posix(), path.parent.name) for path in paths]
        looked = " nor ".join(f"{folder}/SPEAKER/{pattern}" for folder, pattern in LAYOUTS.items())
        raise ToolkitError(f"{root.absolute()}: VCTK is not there, neither {looked}; set dataset.root=FOLDER")
