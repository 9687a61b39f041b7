"""The best checkpoint by a figure: kept, opened, built on; and training that ends for want of a better."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from toys import PIXELCNN, TILES, TOY, VQ, fingerprint, flip, metrics, plugged_in, trainers

from toolkit import __main__ as command
from toolkit import load
from toolkit.cli.config.compose import compose
from toolkit.cli.config.reopen import reopen
from toolkit.errors import ToolkitError
from toolkit.metric import direction_of
from toolkit.metrics.codebook import CodebookMetric
from toolkit.metrics.reconstruction import ReconstructionMetric
from toolkit.runs.best import Best, Rule, judged, read_best, write_best
from toolkit.runs.folder import Run
from toolkit.stages.run import train

WORDS = [
    *TILES,
    *VQ,
    *PIXELCNN,
    *trainers("batch_size=4", "workers=0", "steps=20", "keep=1", "log_every=4", "checkpoint_every=7"),
    *("trainer.validate_every=3", "trainer.pictures_every=100", "prior_trainer.allow_collapsed=true"),
    *("prior_trainer.steps=3", "trainer.learning_rate=0.01", "trainer.ema=0.5"),
    # it falls from the first validation on, so that this one stays the best: training ends at step 9
    *("trainer.best=val/nll", "trainer.best_mode=max", "trainer.patience=2"),
]


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_PLUGIN_PATH", str(TOY))


class Notes:
    """A report that keeps what it is told, and stops the training at a step of stage one, as a kill would."""

    def __init__(self, at: int = -1) -> None:
        self.notes: list[str] = []
        self.at, self.stage = at, ""

    def begin(self, stage: str, done: int, steps: int) -> None:
        self.stage = stage

    def step(self, done: int) -> None:
        if self.stage == "autoencoder" and done == self.at:
            raise Stopped

    def metrics(self, split: str, step: int, metrics: Mapping[str, float]) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


class Stopped(Exception):
    """Stands for a kill."""


def resume(folder: Path, *words: str) -> list[str]:
    report = Notes()
    train(reopen(Run.open(folder).config_values(), words).config, folder, report=report)
    return report.notes


def steps(folder: Path) -> list[int]:
    return [int(path.name[5:]) for path in sorted((folder / "autoencoder").glob("step-*"))]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose first stage has ended early."""
    folder = tmp_path_factory.mktemp("runs") / "ended"
    with plugged_in():
        report = Notes()
        train(compose(WORDS).config, folder, report=report)
    (folder / "notes.json").write_text(json.dumps(report.notes))
    return folder


@pytest.mark.parametrize(
    ("values", "mode", "best", "since"),
    [
        ([], "min", None, 0),
        ([3.0, 2.0, 2.0, 4.0], "min", 1, 2),
        ([3.0, 2.0, 2.0, 4.0], "max", 3, 0),
        ([nan, 5.0, nan, 6.0], "min", 1, 2),
        ([nan, nan], "max", None, 2),
        ([1.0, inf, 2.0], "max", 1, 1),
    ],
)
def test_the_first_of_the_best_is_the_best(values: list[float], mode: Any, best: int | None, since: int) -> None:
    """And a number that is none is better than nothing but nothing."""
    lines = [{"stage": "a", "split": "val", "step": i, "x": value} for i, value in enumerate(values)]
    others: list[dict[str, Any]] = [
        {"stage": "a", "split": "train", "step": 9, "x": -9.0},
        {"stage": "b", "split": "val", "step": 9, "x": 9e9},
    ]
    found = judged([*lines, *others], "a", Rule("x", mode))
    assert (found.best and found.best.step, found.since) == (best, since)


def test_directions_are_those_of_the_longest_beginning() -> None:
    known = {**CodebookMetric.directions, **ReconstructionMetric.directions, "psnr_decay": "min"}
    assert direction_of("usage_part_2", known) == "max"
    assert direction_of("psnr_decay", known) == "min"
    assert direction_of("psnrs", known) is None
    assert direction_of("nearest_pair", known) is None


def test_what_is_noted_is_read_again_and_damage_is_nothing(tmp_path: Path) -> None:
    best = Best("val/psnr", "max", 7, 31.25)
    write_best(tmp_path, best)
    assert read_best(tmp_path) == best
    for text in (
        "",
        "[]",
        "{}",
        '{"figure": 1, "mode": "max", "step": 7, "value": 1.0}',
        '{"figure": "a", "mode": "up"}',
    ):
        (tmp_path / "best.json").write_text(text)
        assert read_best(tmp_path) is None
    write_best(tmp_path, None)
    write_best(tmp_path, None)
    assert not (tmp_path / "best.json").exists()


def test_training_ends_and_the_best_is_kept(ended: Path) -> None:
    assert steps(ended) == [3, 9]
    best = read_best(ended / "autoencoder")
    assert best is not None
    assert (best.figure, best.mode, best.step) == ("val/nll", "max", 3)
    notes = json.loads((ended / "notes.json").read_text())
    (end,) = (note for note in notes if "ended early" in note)
    assert "at step 3" in end
    assert "trainer.patience=2" in end
    assert (ended / "samples" / "autoencoder-00000009.png").is_file()


def test_stage_two_stands_on_the_best_and_says_so(ended: Path) -> None:
    notes = json.loads((ended / "notes.json").read_text())
    assert any("prior=pixelcnn" in note and "autoencoder/step-00000003, its best" in note for note in notes)
    model = load(ended, "cpu")
    assert model.checkpoint.step == 3
    assert any("step-00000003, its best" in notice for notice in model.notices)
    assert model.prior_steps == {"pixelcnn": 3}
    model.sample(1)
    last = load(ended, "cpu", checkpoint="last")
    assert last.checkpoint.step == 9
    with pytest.raises(ToolkitError, match=r"autoencoder/step-00000003 .*checkpoint=3"):
        last.prior("pixelcnn")


@pytest.mark.long
@pytest.mark.parametrize("at", [2, 4, 6, 8, 9])
def test_a_run_that_was_stopped_ends_where_one_does_that_was_not(ended: Path, tmp_path: Path, at: int) -> None:
    with pytest.raises(Stopped):
        train(compose(WORDS).config, tmp_path / "run", report=Notes(at))
    resume(tmp_path / "run")
    assert steps(tmp_path / "run") == [3, 9]
    assert metrics(tmp_path / "run") == metrics(ended)
    assert fingerprint(tmp_path / "run") == fingerprint(ended)
    assert read_best(tmp_path / "run" / "autoencoder") == read_best(ended / "autoencoder")


@pytest.mark.long
def test_what_has_ended_stays_so_until_it_may_wait_longer(ended: Path, tmp_path: Path) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(ended, run)
    before = fingerprint(run)
    assert any("ended early" in note for note in resume(run))
    assert fingerprint(run) == before
    resume(run, "trainer.patience=3", "stage=autoencoder")
    assert steps(run) == [3, 12]
    resume(run, "trainer.best=null", "trainer.patience=null", "trainer.best_mode=auto", "stage=autoencoder")
    assert steps(run) == [20]
    assert read_best(run / "autoencoder") is None


@pytest.mark.long
def test_commands_open_what_they_are_asked_for(ended: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for asked, step in (("best", 3), ("last", 9), ("9", 9), (None, 3)):
        words = [f"run={ended}", "examples=4", *([f"checkpoint={asked}"] if asked else [])]
        assert command.run(["evaluate", *words]) == 0, capsys.readouterr().err
        assert json.loads((ended / "evaluation.json").read_text())["step"] == step
    assert command.run(["sample", f"run={ended}", "n=1", "checkpoint=best", "prior_checkpoint=last"]) == 0
    assert (ended / "samples" / "pixelcnn-seed0-step-best-prior-last" / "samples.png").is_file()
    capsys.readouterr()
    for asked, named in (("5", "kept: 3, 9"), ("good", "best, last or a step"), ("-1", "best, last or a step")):
        assert command.run(["reconstruct", f"run={ended}", f"checkpoint={asked}"]) == 2
        told = capsys.readouterr().err
        assert f"checkpoint={asked}" in told
        assert named in told
    assert command.run(["sample", f"run={ended}", "prior_checkpoint=best"]) == 2
    assert "prior_trainer.best" in capsys.readouterr().err


def test_a_best_that_is_damaged_is_told(ended: Path, tmp_path: Path) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(ended, run)
    flip(run / "autoencoder" / "step-00000003" / "model.safetensors")
    model = load(run, "cpu")
    assert model.checkpoint.step == 9
    assert any("best checkpoint" in notice and "step 3" in notice for notice in model.notices)
    with pytest.raises(ToolkitError, match="checkpoint=best"):
        load(run, "cpu", checkpoint="best")


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["trainer.best=val/nsme"], ["trainer.best=val/nsme", "nmse", "best_mode=min or max"]),
        (["trainer.best=val/psnr", "metric=[codebook]"], ["trainer.best=val/psnr", "best_mode"]),
        (["trainer.best=nmse"], ["trainer.best=nmse", "best=val/nmse"]),
        (["trainer.best=train/loss"], ["trainer.best=train/loss", "best=val/loss"]),
        (["trainer.patience=2"], ["trainer.patience=2", "best=val/"]),
        (["trainer.best_mode=max"], ["trainer.best_mode=max", "best=val/"]),
        (["prior_trainer.best=val/nmse"], ["prior_trainer.best=val/nmse", "loss"]),
    ],
)
def test_what_means_nothing_is_refused_before_anything_is_written(
    tmp_path: Path, words: list[str], named: list[str]
) -> None:
    plain = [word for word in WORDS if not word.startswith(("trainer.best", "trainer.patience"))]
    with pytest.raises(ToolkitError) as error:
        train(compose([*plain, *words]).config, tmp_path / "run")
    assert all(name in str(error.value) for name in named), error.value
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_figure_that_no_validation_has_is_told_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match=r"trainer.best=val/nlll: the validation has no nlll \(did you mean nll"):
        train(compose([*WORDS, "trainer.best=val/nlll"]).config, tmp_path / "run", report=Notes())
    assert steps(tmp_path / "run") == [3], "its steps are kept"


def test_a_search_minimizes_what_is_opened(ended: Path) -> None:
    from toolkit.scoring import validation_score

    run = Run.open(ended)
    lines = [line for line in run.log if line["split"] == "val" and line["stage"] == "autoencoder"]
    assert [line["step"] for line in lines] == [3, 6, 9]
    (prior,) = (line for line in run.log if line["split"] == "val" and line["stage"] == "prior-pixelcnn")
    from math import log

    score = (lines[0]["nll"] + prior["loss"]) / (run.spec()[0].dims * log(2))
    assert validation_score(run, run.spec()[0], run.config()) == pytest.approx(score)


@pytest.mark.slow
def test_two_ranks_agree(tmp_path: Path) -> None:
    """On the best, and on when to end; stopped and continued, too."""
    whole, again = tmp_path / "whole", tmp_path / "again"
    words = [*WORDS, "trainer.ranks=2"]
    assert command.run(["train", *words, f"hydra.run.dir={whole}"]) == 0
    assert steps(whole) == [3, 9]
    assert command.run(["train", *words, "trainer.steps=4", "stage=autoencoder", f"hydra.run.dir={again}"]) == 0
    assert command.run(["train", f"run={again}", "trainer.steps=20", "stage=all"]) == 0
    assert steps(again) == [3, 6], "the first command's last step was validated, too, and counts"
    assert read_best(again / "autoencoder") == read_best(whole / "autoencoder")
    assert load(again, "cpu").prior_steps == {"pixelcnn": 3}
