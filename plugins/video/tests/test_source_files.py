"""What a run records of a folder's videos."""

from __future__ import annotations

from pathlib import Path

from made_clips import numbered, save

from toolkit_video.actions import ActionsDataset
from toolkit_video.folder import FolderDataset


def test_videos_actions_and_their_names_are_named(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        save(tmp_path / split / "jump" / "a.mp4", numbered(20, 64))
        (tmp_path / split / "jump" / "a.csv").write_text("left\n" * 20)
    (tmp_path / "actions.txt").write_text("left\nright\n")
    videos = [f"{split}/jump/a.mp4" for split in ("train", "val", "test")]
    files = list(FolderDataset(root=str(tmp_path), frames=4, size=16).source_files())
    assert [file.name for file in files] == videos
    assert [(file.split, file.label) for file in files] == [(name.split("/")[0], "jump") for name in videos]
    files = list(ActionsDataset(root=str(tmp_path), frames=4, size=16).source_files())
    assert {file.name for file in files} == {*videos, *(name.replace("mp4", "csv") for name in videos), "actions.txt"}
    assert all(Path(file.path).is_file() for file in files)
