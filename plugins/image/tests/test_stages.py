"""Two stages and a second model over the first's codes, on real CIFAR-10 at a size for minutes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import toolkit
from toolkit.__main__ import run
from toolkit_image.cifar10 import CIFAR10Dataset

pytestmark = pytest.mark.slow
PRIOR = ["prior_trainer.batch_size=32", "prior_trainer.learning_rate=1e-3", "prior_trainer.validate_examples=256"]
TRAINER = [
    "trainer.learning_rate=1e-3",
    "trainer.validate_examples=256",
    "trainer.workers=0",
    "prior_trainer.workers=0",
]


@pytest.fixture(scope="module")
def base(real: CIFAR10Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the notebook's size with two trained priors."""
    folder = tmp_path_factory.mktemp("base") / "run"
    words = [*TRAINER, *PRIOR, "trainer.steps=600", "prior=categorical", "prior_trainer.steps=1500"]
    assert (
        run(
            [
                "train",
                "experiment=image_cifar10_notebook",
                f"dataset.root={real.root}",
                *words,
                f"hydra.run.dir={folder}",
            ]
        )
        == 0
    )
    small = ["prior=pixelcnn", "prior.hidden=64", "prior.layers=6", "prior.kernel_size=3", "prior_trainer.steps=500"]
    assert run(["train", f"run={folder}", "stage=prior", *small]) == 0
    return folder


def test_a_network_beats_shares_and_shares_beat_nothing(base: Path) -> None:
    """In code bits on the test split, as rows of one evaluation."""
    assert run(["evaluate", f"run={base}", "examples=1000"]) == 0
    rows = json.loads((base / "evaluation.json").read_text())["priors"]
    pixelcnn, categorical, uniform = (
        rows[name]["code_bits_per_dim"] for name in ("pixelcnn", "categorical", "uniform")
    )
    assert pixelcnn < 0.9 * categorical < categorical < 0.95 * uniform
    assert uniform == 0.1875


def test_a_second_stage_uses_its_three_codes(base: Path, real: CIFAR10Dataset, tmp_path: Path) -> None:
    """Another image's codes cost the decoder likelihood."""
    small = ["encoder.hidden=64", "decoder.hidden=32", "decoder.layers=6", "decoder.kernel_size=3", "decoder.head=128"]
    words = [
        *small,
        *TRAINER,
        *PRIOR,
        "trainer.steps=600",
        "trainer.batch_size=32",
        "prior.hidden=32",
        "prior_trainer.steps=100",
    ]
    out = tmp_path / "run"
    assert (
        run(["train", "experiment=image_cifar10_second_stage", f"dataset.run={base}", *words, f"hydra.run.dir={out}"])
        == 0
    )
    model = toolkit.load(out)
    assert model.code_spec.rate == 27.0
    x = torch.stack([real.example("test", i, None)["x"] for i in range(512)])
    with torch.no_grad():
        lower = model.base.encode(x) if model.base else x
        codes = model.quantize(lower)
        own, others = (
            -model.autoencoder.decode(model.autoencoder.embed(each), {}).log_prob(lower).mean()
            for each in (codes, codes.roll(1, 0))
        )
    assert others > own + 3
    drawn, three = model.sample(4)
    assert drawn.shape == (4, 3, 32, 32)
    assert three.shape == (4, 3, 1, 1)
