"""When codes are said to have collapsed, what is advised, and what stage two does about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from toolkit import ToolkitError, collapse
from toolkit import __main__ as command
from toolkit.cli.config.compose import compose
from toolkit.cli.config.reopen import reopen
from toolkit.config import PartConfig
from toolkit.part import make
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.running_metrics import histogram
from toolkit.runs.codes import CachedCodes
from toolkit.runs.folder import Run
from toolkit.spec import CodeSpec
from toolkit.stages.run import train

TOY = Path(__file__).parent / "toy"
PARTS = [
    "dataset=toy_tiles",
    "encoder=toy_conv",
    "decoder=toy_conv",
    "likelihood=categorical",
    "dim=4",
    "prior=pixelcnn",
    "prior.hidden=8",
    "prior.layers=2",
    "prior.head=8",
    "quantizer=vq",
    "trainer.steps=4",
    "trainer.batch_size=4",
    "trainer.validate_every=1",
    "trainer.workers=0",
    "prior_trainer.steps=2",
    "prior_trainer.batch_size=4",
    "prior_trainer.workers=0",
]
COLLAPSING = ["dim=1", "quantizer.init=random", "quantizer.codebook_size=256", "trainer.learning_rate=1e-9"]
"""Entries near zero, latents far from it on a line: the outermost two are nearest to almost all."""


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_PLUGIN_PATH", str(TOY))


@pytest.mark.parametrize(("used", "collapses"), [(5, True), (7, False)])
def test_the_criterion_is_a_tenth_of_what_random_codes_would_use(used: int, collapses: bool) -> None:
    """100 codes of 100 entries: random ones would use 63 of them."""
    counts = torch.zeros(100, dtype=torch.double)
    counts[:used] = 100 / used
    assert bool(collapse.collapsed(counts, CodeSpec((), (100,)))) is collapses


def test_many_collapsed_depths_are_one_sentence() -> None:
    counts = torch.zeros(10, 64, dtype=torch.double)
    counts[:, :2] = 1000
    (told,) = (collapse.warning(counts.flatten(), CodeSpec((), (64,) * 10), VectorQuantizer(2)),)
    assert told is not None
    assert "2 of 64 entries are used at depth 0, 2 of 64 at depth 1, 2 of 64 at depth 2, as few at 7 more;" in told


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"name": "ema", "dead_code_threshold": 0.0}, ["quantizer.dead_code_threshold=0.1", "quantizer.init=kmeans"]),
        (
            {"name": "ema", "dead_code_threshold": 0.2, "init": "kmeans"},
            ["a smaller quantizer.codebook_size", "more steps"],
        ),
        (
            {"name": "product", "inner": {"name": "ema", "dead_code_threshold": 0.0}},
            ["quantizer.inner.dead_code_threshold=0.1"],
        ),
        ({"name": "fsq"}, ["a smaller quantizer.levels", "more steps"]),
    ],
)
def test_remedies_are_options_of_this_model(node: dict[str, Any], words: list[str]) -> None:
    found = collapse.remedies(make("quantizer", PartConfig.read(node, "quantizer", "here"), dim=4))
    assert set(words) <= set(found)
    assert len(set(found)) == len(found)
    assert ("quantizer.dead_code_threshold=0.1" in found) == ("quantizer.dead_code_threshold=0.1" in words)
    assert ("quantizer.init=kmeans" in found) == ("quantizer.init=kmeans" in words)


def test_a_remedy_can_be_composed() -> None:
    quantizer = make("quantizer", PartConfig("product", {"inner": {"name": "vq"}}), dim=4)
    words = [word for word in collapse.remedies(quantizer) if "=" in word]
    assert words
    composed = compose(["quantizer=product", "quantizer.inner.name=vq", *words], complete=False).values["quantizer"]
    for word in words:
        key, _, value = word.removeprefix("quantizer.inner.").partition("=")
        assert str(composed["inner"][key]) == value


# -- in a run


def test_training_tells_it_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Though it is validated four times, and the count of used entries may change in between."""
    train(compose([*PARTS, *COLLAPSING, "stage=autoencoder"]).config, tmp_path / "run")
    out = capsys.readouterr().out
    assert out.count("autoencoder val ") == 4
    assert out.count("the codes have collapsed") == 1
    assert "try quantizer.dead_code_threshold=0.1, " in out


@pytest.mark.long
def test_stage_two_refuses_collapsed_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And says what to do; told to go on all the same, it does, from the autoencoder that there is."""
    run = Run(tmp_path / "run")
    with pytest.raises(
        ToolkitError, match=r"(?s)of 256 entries .*quantizer\.dead_code_threshold=0\.1.*allow_collapsed=true"
    ):
        train(compose([*PARTS, *COLLAPSING]).config, run.path)
    assert run.priors() == []
    train(reopen(run.config_values(), ["prior_trainer.allow_collapsed=true"]).config, run.path)
    assert run.priors() == ["pixelcnn"]
    assert capsys.readouterr().out.count("autoencoder: from 0") == 1


def test_healthy_codes_are_not_refused(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    train(compose([*PARTS, "quantizer.codebook_size=64"]).config, run.path)
    assert run.priors() == ["pixelcnn"]


def test_the_evaluate_command_says_it_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    train(compose([*PARTS, *COLLAPSING, "stage=autoencoder"]).config, run)
    capsys.readouterr()
    assert command.run(["evaluate", f"run={run}"]) == 0
    captured = capsys.readouterr()
    assert "note: the codes have collapsed" in captured.err
    assert "quantizer.dead_code_threshold=0.1" in captured.err
    assert captured.out.splitlines()[-1] == str(run / "samples" / "codebook.png")
    assert (run / "samples" / "codebook.png").is_file()


@pytest.mark.parametrize("stretch", [1, 50, 1 << 20])
def test_cached_codes_are_gone_through_once(monkeypatch: pytest.MonkeyPatch, stretch: int) -> None:
    monkeypatch.setattr("toolkit.runs.codes.STRETCH", stretch)
    code_spec, codes = CodeSpec((3, 4), (7, 5)), torch.randint(5, (37, 2, 3, 4))
    parts = list(CachedCodes({"train": {"codes": codes.to(torch.uint8).numpy()}}).stretches("train"))
    assert torch.equal(torch.cat(parts), codes)
    assert all(part.numel() <= max(stretch, 24) for part in parts)
    assert torch.equal(sum(histogram(part, code_spec) for part in parts), histogram(codes, code_spec))
