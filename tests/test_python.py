"""What a command does, done in Python: compose, train, evaluate, continue."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from safetensors.torch import load_file

import toolkit
from toolkit.__main__ import run as command
from toolkit.report import Silence

pytestmark = pytest.mark.long

WORDS = """
dataset=waves dataset.axes=[8,8] dataset.train_size=32 dataset.val_size=8 dataset.test_size=8
encoder=patch encoder.hidden=8 decoder=patch decoder.hidden=8 likelihood=categorical dim=4
quantizer=ema quantizer.codebook_size=8 prior=pixelcnn prior.hidden=8 prior.layers=1 prior.head=8
trainer.steps=4 trainer.batch_size=4 trainer.workers=0 trainer.ema=0.9 trainer.log_every=2
prior_trainer.steps=3 prior_trainer.batch_size=4 prior_trainer.workers=0
""".split()  # noqa: SIM905


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the newest checkpoints of both stages, and of the code cache."""
    files = [*run.glob("autoencoder/step-*/*.safetensors"), *run.glob("priors/*/step-*/*.safetensors")]
    files += run.glob("codes/*.safetensors")
    return {f"{file.relative_to(run)}:{name}": t for file in files for name, t in load_file(file).items()}


def in_a_fresh_process(code: str, *args: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *args], env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_python_trains_what_the_command_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, the one in a fresh process."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    code = "import sys, toolkit; print(toolkit.train(toolkit.compose(*sys.argv[2:]), sys.argv[1]))"
    score = in_a_fresh_process(code, str(tmp_path / "python"), *WORDS).splitlines()[-1]
    assert command(["train", *WORDS, f"hydra.run.dir={tmp_path / 'command'}"]) == 0
    ours, theirs = weights(tmp_path / "python"), weights(tmp_path / "command")
    assert len(ours) > 40
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for name in ("config.yaml", "spec.json", "components.json"):
        assert (tmp_path / "python" / name).read_text() == (tmp_path / "command" / name).read_text()
    assert float(score) > 0


def test_a_run_is_evaluated_and_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    toolkit.train(toolkit.compose(*WORDS), run, report=Silence())
    assert capsys.readouterr().out == ""
    metrics = toolkit.evaluate(run, examples=4)
    assert metrics == json.loads((run / "evaluation.json").read_text())
    assert (metrics["examples"], metrics["step"], metrics["prior_steps"]) == (4, 4, {"pixelcnn": 3})
    toolkit.train(toolkit.compose("prior_trainer.steps=5", "stage=prior", run=run), run)
    assert "prior-pixelcnn: from 3 to 5" in capsys.readouterr().out
    assert toolkit.evaluate(toolkit.load(run), split="val", metrics=["codebook"])["prior_steps"] == {"pixelcnn": 5}


def test_a_report_of_ones_own(tmp_path: Path) -> None:
    class Kept:
        def __init__(self) -> None:
            self.calls: list[tuple[Any, ...]] = []

        def begin(self, stage: str, done: int, steps: int) -> None:
            self.calls.append(("begin", stage, done, steps))

        def step(self, done: int) -> None:
            self.calls.append(("step", done))

        def metrics(self, split: str, step: int, metrics: Any) -> None:
            self.calls.append((split, step, sorted(metrics)[:1]))

        def note(self, text: str) -> None:
            self.calls.append(("note", text))

    report = Kept()
    toolkit.train(toolkit.compose(*WORDS, "stage=autoencoder"), tmp_path / "run", report=report)
    assert report.calls[0] == ("begin", "autoencoder", 0, 4)
    assert [call[1] for call in report.calls if call[0] == "step"] == [1, 2, 3, 4]
    assert [call[:2] for call in report.calls if call[0] in ("train", "val")] == [
        ("train", 2),
        ("train", 4),
        ("val", 4),
    ]


def test_a_configuration_is_frozen_and_plain(tmp_path: Path) -> None:
    config = toolkit.compose(*WORDS)
    assert (config.encoder.name, config.encoder.options["hidden"], config.trainer.steps) == ("patch", 8, 4)
    with pytest.raises(AttributeError):
        config.dim = 3  # type: ignore[misc]
    assert toolkit.RunConfig.read(json.loads(json.dumps(config.values()))) == config


def test_composing_leaves_hydra_as_it_was(tmp_path: Path) -> None:
    """In a program that uses Hydra itself, too, before, in between and afterwards."""
    (tmp_path / "theirs.yaml").write_text("size: 3\n")
    toolkit.compose(*WORDS)
    assert not GlobalHydra.instance().is_initialized()
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        toolkit.compose(*WORDS)
        assert hydra.compose("theirs").size == 3
        sources = [source.provider for source in GlobalHydra.instance().config_loader().get_sources()]
        assert "registry" not in sources


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("waves_of_joy",), "waves_of_joy"),
        (("image_shapes", "audio_vowels"), "one experiment"),
        ((*WORDS, "dim=x"), "dim: expects int"),
        ((*WORDS, "quantizer.codebok_size=3"), "codebook_size"),
    ],
)
def test_wrong_words_are_refused(words: tuple[str, ...], expected: str) -> None:
    with pytest.raises(toolkit.ToolkitError, match=expected):
        toolkit.compose(*words)


def test_what_a_person_should_know_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="likelihood=categorical is ignored"):
        toolkit.compose(*WORDS, "decoder=pixelcnn")


def test_ranks_need_a_launcher(tmp_path: Path) -> None:
    with pytest.raises(toolkit.ToolkitError, match="torchrun"):
        toolkit.train(toolkit.compose(*WORDS, "trainer.ranks=2"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
