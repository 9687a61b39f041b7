"""What toolkit start proposes for a folder of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import toolkit
from toolkit import ToolkitError
from toolkit.__main__ import run
from toolkit.proposal import Proposal
from toolkit_image.folder import FolderDataset


def put(path: Path, size: tuple[int, int] = (70, 80), gray: bool = False, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 1 if gray else 3), dtype=np.uint8)
    Image.fromarray(np.broadcast_to(pixels, (*size, 3)).copy()).save(path)
    return path


def proposed(root: Path) -> tuple[Proposal, dict[str, object]]:
    proposal = FolderDataset.propose(root)
    assert proposal is not None
    return proposal, {choice.key: choice.value for choice in proposal.choices}


def classes(root: Path, count: int = 30) -> Path:
    for i in range(count):
        put(root / ("cat" if i % 2 else "dog") / f"{i}.png", seed=i)
    return root


def test_size_classes_and_strides_are_those_of_the_files(tmp_path: Path) -> None:
    proposal, chosen = proposed(classes(tmp_path))
    assert proposal.contents == "30 images of 80 x 70, 2 classes"
    assert proposal.files == 30
    assert (chosen["dataset.size"], chosen["encoder.strides"], chosen["dataset.channels"]) == (64, [2, 2], 3)
    assert chosen["conditions.prior"] == ["class"]
    assert chosen["quantizer.commitment"] == 0.25 * (64 * 64 * 3) / 2 / 32


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    classes(tmp_path)
    (tmp_path / "cat" / "torn.png").write_bytes((tmp_path / "cat" / "1.png").read_bytes()[:2000])
    (tmp_path / "cat" / "fake.jpg").write_text("no picture")
    put(tmp_path / "dog" / "small.png", (20, 20))
    proposal, _ = proposed(tmp_path)
    said = "\n".join(proposal.faults)
    assert "2 files cannot be read" in said
    assert "1 image will be skipped, smaller than 64 pixels: dog/small.png" in said
    assert "2 classes with fewer than 20 images" in said
    assert "only 31 images" in said


def test_images_beside_folders_have_no_classes(tmp_path: Path) -> None:
    put(classes(tmp_path) / "loose.png")
    proposal, chosen = proposed(tmp_path)
    assert chosen["dataset.labels"] == "none"
    assert "conditions.prior" not in chosen
    assert any("loose.png" in fault and "move it" in fault for fault in proposal.faults)
    dataset = FolderDataset(root=str(tmp_path), size=16, labels="none")
    assert dataset.spec.conditions == ()
    assert sum(map(dataset.size, ("train", "val", "test"))) == 31


def test_gray_images_have_one_channel(tmp_path: Path) -> None:
    for i in range(4):
        put(tmp_path / f"{i}.png", gray=True, seed=i)
    proposal, chosen = proposed(tmp_path)
    assert chosen["dataset.channels"] == 1
    assert proposal.contents.startswith("4 images in gray")


def test_what_cannot_be_proposed_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    assert FolderDataset.propose(tmp_path) is None
    (tmp_path / "fake.png").write_text("x")
    with pytest.raises(ToolkitError, match=r"1 file cannot be read.*: fake\.png"):
        FolderDataset.propose(tmp_path)
    (tmp_path / "fake.png").unlink()
    put(tmp_path / "tiny.png", (4, 4))
    with pytest.raises(ToolkitError, match="too small"):
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
    root = classes(tmp_path / "my photos")
    (root / "cat" / "torn.png").write_bytes(b"\x89PNG")
    out = tmp_path / "my" / "experiment" / "photos.yaml"
    assert run(["start", str(root), f"out={out}"]) == 0
    small = [f"{stage}.{word}" for stage in ("trainer", "prior_trainer") for word in ("steps=2", "batch_size=2")]
    config = toolkit.compose("photos", *small, "prior_trainer.allow_collapsed=true", *FEW, config_dir=tmp_path / "my")
    assert config.dataset.name == "image_folder"
    toolkit.train(config, tmp_path / "run")
    assert toolkit.load(tmp_path / "run").sample(2).x.shape == (2, 3, 64, 64)
