"""What toolkit start proposes for a folder of recordings."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_sounds import noise, save

import toolkit
from toolkit import ToolkitError
from toolkit.__main__ import run
from toolkit.proposal import Proposal
from toolkit_audio.folder import FolderDataset


def proposed(root: Path) -> tuple[Proposal, dict[str, object]]:
    proposal = FolderDataset.propose(root)
    assert proposal is not None
    return proposal, {choice.key: choice.value for choice in proposal.choices}


def speakers(root: Path, rate: int = 16000, seconds: float = 1.0) -> Path:
    for i in range(6):
        save(root / ("ann" if i % 2 else "bob") / f"{i}.wav", noise(seconds, rate, i), rate)
    return root


def test_rate_strides_and_speakers_are_those_of_the_files(tmp_path: Path) -> None:
    proposal, chosen = proposed(speakers(tmp_path))
    assert proposal.contents == "6 sounds of 1.0 s, 0.1 minutes, 2 folders as speakers"
    assert (chosen["dataset.sample_rate"], chosen["dataset.seconds"], chosen["dataset.trim"]) == (16000, 0.32, 40)
    assert chosen["conditions.prior"] == ["speaker"]
    assert chosen["decoder.strides"] == [8, 5, 4, 2]


@pytest.mark.parametrize(("own", "rate", "hop"), [(44100, 24000, 320), (8000, 8000, 160), (6000, 6000, 160)])
def test_a_rate_that_most_files_have(tmp_path: Path, own: int, rate: int, hop: int) -> None:
    save(tmp_path / "x.wav", noise(1.0, own), own)
    _, chosen = proposed(tmp_path)
    seconds = chosen["dataset.seconds"]
    assert isinstance(seconds, float)
    assert chosen["dataset.sample_rate"] == rate
    assert round(seconds * rate) % hop == 0
    assert "conditions.prior" not in chosen


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    speakers(tmp_path, 24000)
    (tmp_path / "ann" / "torn.flac").write_bytes(b"fLaC nothing")
    save(tmp_path / "carl" / "low.wav", noise(0.2, 8000), 8000)
    for i in range(8):
        save(tmp_path / "ann" / f"more {i}.wav", noise(0.2, 24000), 24000)
    said = "\n".join(proposed(tmp_path)[0].faults)
    assert "1 file cannot be read, and will be skipped: ann/torn.flac" in said
    assert "1 file with fewer than 24,000 samples a second will sound dull: carl/low.wav" in said
    assert "1 folder with one file, and nothing to validate on: carl" in said
    assert "less than 15 minutes" in said


def test_what_cannot_be_proposed_for(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"x")
    assert FolderDataset.propose(tmp_path) is None
    (tmp_path / "fake.wav").write_bytes(b"x")
    with pytest.raises(ToolkitError, match=r"1 file cannot be read.*: fake\.wav"):
        FolderDataset.propose(tmp_path)


FEW = ["trainer.validate_examples=2", "prior_trainer.validate_examples=2", "prior.hidden=8", "metric=[reconstruction]"]


@pytest.mark.long
def test_the_experiment_composes_and_trains(tmp_path: Path) -> None:
    root, out = speakers(tmp_path / "my voices"), tmp_path / "my" / "experiment" / "voices.yaml"
    (root / "ann" / "torn.wav").write_bytes(b"RIFF")
    assert run(["start", str(root), f"out={out}"]) == 0
    small = [f"{stage}.{word}" for stage in ("trainer", "prior_trainer") for word in ("steps=2", "batch_size=2")]
    config = toolkit.compose("voices", *small, "prior_trainer.allow_collapsed=true", *FEW, config_dir=tmp_path / "my")
    toolkit.train(config, tmp_path / "run")
    assert toolkit.load(tmp_path / "run").sample(2).x.shape == (2, 1, 5120)
