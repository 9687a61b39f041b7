"""What toolkit start proposes for a folder of videos."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_clips import numbered, save

import toolkit
from toolkit import ToolkitError
from toolkit.__main__ import run
from toolkit.proposal import Proposal
from toolkit_video.folder import FolderDataset


def proposed(root: Path) -> tuple[Proposal, dict[str, object]]:
    proposal = FolderDataset.propose(root)
    assert proposal is not None
    return proposal, {choice.key: choice.value for choice in proposal.choices}


def clips(root: Path, names: str, frames: int = 20, rate: float = 10) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name in names.split():
        (root / name).parent.mkdir(exist_ok=True)
        save(root / name, numbered(frames), rate)
    return root


def test_rate_size_and_classes_are_those_of_the_files(tmp_path: Path) -> None:
    proposal, chosen = proposed(clips(tmp_path, "a/1.mp4 a/2.mp4 b/3.mp4"))
    assert proposal.contents == "3 videos of 1.9 s, 0.1 minutes, most often 64 x 48, 2 classes"
    assert (chosen["dataset.size"], chosen["dataset.frames"], chosen["dataset.rate"]) == (32, 16, 10.0)
    assert (chosen["dataset.labels"], chosen["conditions.prior"]) == ("folder", ["class"])


def test_names_before_a_number_are_classes_where_there_are_no_folders(tmp_path: Path) -> None:
    _, chosen = proposed(clips(tmp_path, "wave1.mp4 wave2.mp4 nod1.mp4 nod2.mp4"))
    assert chosen["dataset.labels"] == "file"
    _, chosen = proposed(clips(tmp_path / "other", "kitchen.mp4 street.mp4"))
    assert chosen["dataset.labels"] == "none"


def test_short_films_have_fewer_frames_and_what_is_wrong_is_said(tmp_path: Path) -> None:
    clips(tmp_path, "1.mp4 2.mp4", frames=9)
    (tmp_path / "torn.mp4").write_bytes((tmp_path / "1.mp4").read_bytes()[:300])
    proposal, chosen = proposed(tmp_path)
    assert chosen["dataset.frames"] == 8
    said = "\n".join(proposal.faults)
    assert "1 file cannot be read, and will be skipped: torn.mp4" in said
    assert "only 2 videos" in said


def test_what_cannot_be_proposed_for(tmp_path: Path) -> None:
    assert FolderDataset.propose(tmp_path) is None
    (tmp_path / "fake.mp4").write_bytes(b"x")
    with pytest.raises(ToolkitError, match=r"1 file cannot be read.*: fake\.mp4"):
        FolderDataset.propose(tmp_path)


FEW = [
    "trainer.validate_examples=2",
    "prior_trainer.validate_examples=2",
    "encoder.hidden=8",
    "decoder.hidden=8",
    "prior.hidden=8",
]


@pytest.mark.long
def test_the_experiment_composes_and_trains(tmp_path: Path) -> None:
    root = clips(tmp_path / "my clips", "a/1.mp4 a/2.mp4 a/3.mp4 b/4.mp4 b/5.mp4")
    (root / "a" / "torn.mp4").write_bytes(b"x")
    out = tmp_path / "my" / "experiment" / "clips.yaml"
    assert run(["start", str(root), f"out={out}"]) == 0
    small = [f"{stage}.{word}" for stage in ("trainer", "prior_trainer") for word in ("steps=2", "batch_size=2")]
    config = toolkit.compose("clips", *small, "prior_trainer.allow_collapsed=true", *FEW, config_dir=tmp_path / "my")
    toolkit.train(config, tmp_path / "run")
    assert toolkit.load(tmp_path / "run").sample(2).x.shape == (2, 3, 16, 32, 32)
