"""Runs that were trained against a frozen network: continued, opened, and refused without its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_features
import torch
from messages import assert_names
from toys import fingerprint

import toolkit
from toolkit.__main__ import run as command
from toolkit.report import Silence

pytestmark = pytest.mark.long

WORDS = [
    *("dataset=image_shapes", "dataset.train_size=32", "dataset.val_size=8", "dataset.test_size=8", "dim=8"),
    *("encoder=image_conv", "encoder.hidden=8", "decoder=image_conv", "decoder.hidden=8", "likelihood=logistic"),
    *("quantizer=ema", "quantizer.codebook_size=8", "stage=autoencoder", "trainer.batch_size=4", "trainer.workers=0"),
    *("trainer.checkpoint_every=2", "trainer.validate_examples=8", "trainer.log_every=1", "trainer.ema=0.9"),
    *("objective=image_perceptual", "objective.network=vgg", "objective.crop=16", "objective.share=0.5"),
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tiny_features.write(tmp_path_factory.mktemp("weights"), "vgg"))


def trained(folder: Path, weights: Path, steps: int) -> Path:
    words = [*WORDS, f"objective.weights={weights}", f"trainer.steps={steps}"]
    toolkit.train(toolkit.compose(*words), folder, report=Silence())
    return folder


@pytest.mark.long
def test_a_continued_run_is_an_uninterrupted_one(weights: Path, tmp_path: Path) -> None:
    """Bit for bit, also the crops; and it opens where the weights are gone, but is not trained on."""
    whole, parts = trained(tmp_path / "whole", weights, 4), trained(tmp_path / "parts", weights, 2)
    toolkit.train(toolkit.compose("trainer.steps=4", run=parts), parts, report=Silence())
    assert fingerprint(whole) == fingerprint(parts)
    line = [entry for entry in toolkit.load(whole, "cpu").run.log if entry["split"] == "train"][-1]
    assert line["perceptual"] > 0
    assert 0 < line["perceptual_share"] < 1
    moved = weights.rename(tmp_path / "moved.pth")
    try:
        model = toolkit.load(whole, "cpu")
        assert model.reconstruct(torch.zeros(1, 3, 32, 32).long()).shape == (1, 3, 32, 32)
    finally:
        moved.rename(weights)


def test_weights_that_are_gone_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*WORDS, f"objective.weights={tmp_path}/gone.pth", "trainer.steps=2", f"hydra.run.dir={tmp_path}/run"]
    assert command(["train", *words]) == 2
    assert_names(capsys.readouterr().err.splitlines()[-1], f"toolkit train: weights={tmp_path}/gone.pth: … vgg")
