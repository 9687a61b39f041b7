"""What a run records of a corpus's files."""

from __future__ import annotations

from pathlib import Path

from made_sounds import align

from toolkit_audio.folder import FolderDataset


def test_sounds_and_alignments_are_named_with_split_and_speaker(voices: Path) -> None:
    dataset = FolderDataset(root=str(voices), seconds=0.2, phones=str(align(voices)))
    files = list(dataset.source_files())
    sounds = {file.name: file for file in files if not file.name.startswith("phones/")}
    assert {name: (file.split, file.label) for name, file in sounds.items()} == {
        utterance.path: (split, utterance.speaker) for split, some in dataset.splits.items() for utterance in some
    }
    assert len(files) > len(sounds)
    assert all(Path(file.path).is_file() for file in files)
