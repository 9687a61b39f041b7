"""The package's parts together, between the toolkit's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolkit.__main__ import run

TINY = [
    "trainer.steps=2",
    "trainer.batch_size=4",
    "trainer.validate_examples=8",
    "prior_trainer.steps=2",
    "prior_trainer.batch_size=4",
    "prior_trainer.validate_examples=8",
    "prior_trainer.allow_collapsed=true",  # two steps teach no codebook anything
    "dataset.train_size=16",
    "dataset.val_size=8",
    "dataset.test_size=8",
]


def test_the_experiment_trains_and_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert run(["train", "experiment=hello", *TINY, f"hydra.run.dir={folder}"]) == 0
    assert run(["evaluate", f"run={folder}", "examples=8"]) == 0
    told = json.loads((folder / "evaluation.json").read_text())
    assert "spectrum_db" in told
    assert set(told["priors"]) == {"uniform", "hello_markov"}
    assert run(["sample", f"run={folder}", "n=2", "condition.ratio=2:3", "guidance=2"]) == 0
    assert len(list((folder / "samples" / "hello_markov-seed0").glob("sample-*.csv"))) == 2
    assert run(["sample", f"run={folder}", "condition.ratio=2:4"]) == 2
    assert "condition.ratio=2:4: no such label" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "dataset=waves quantizer=hello_dither prior=hello_markov",
        "dataset=waves dataset.axes=[4,8,8] quantizer=product quantizer.inner.name=hello_dither dim=6",
        "dataset=hello_lissajous quantizer=ema prior=pixelcnn",
    ],
)
def test_the_parts_fit_the_toolkits_own(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    bundled = ["encoder=patch", "decoder=patch", "likelihood=categorical", "prior=hello_markov"]
    chosen = {word.partition("=")[0]: word for word in [*bundled, *words.split()]}
    assert run(["check", *chosen.values()]) == 0, capsys.readouterr().err
