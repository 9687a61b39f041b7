"""A run with loggers is the run without, bit for bit; they hear of all of it, and their failures cost nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from logged_runs import WORDS, Notes
from messages import assert_names
from toy.toy_loggers import CountingLogger
from toys import TOY, fingerprint, plugged_in, trainers

import toolkit
from toolkit import Logger, ToolkitError
from toolkit.__main__ import run as command
from toolkit.cli.config.compose import compose
from toolkit.cli.config.reopen import reopen
from toolkit.logged import Logged
from toolkit.runs.folder import Run
from toolkit.runs.plain import read_yaml, write_yaml
from toolkit.stages.run import train
from toolkit.testing import LoggerSuite


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_PLUGIN_PATH", str(TOY))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without loggers."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    with plugged_in():
        train(compose(WORDS).config, folder, report=Notes())
    return folder


def calls(run: Path) -> list[list[Any]]:
    return [json.loads(line) for line in (run / "counted.jsonl").read_text().splitlines()]


def heard(run: Path) -> tuple[list[Any], list[Any], list[Any]]:
    """What the counting logger was told: lines, pictures, and how the trainings ended."""
    told = calls(run)
    lines, pictures, ends = ([what for call, what in told if call == name] for name in ("log", "picture", "close"))
    return lines, pictures, [status for status, _ in ends]


def assert_heard_all(run: Path) -> None:
    lines, pictures, ends = heard(run)
    assert lines == list(Run(run).log)
    assert sorted(name for *_, name in pictures) == sorted(path.name for path in run.glob("samples/*.png"))
    assert all(name == f"{stage}-{step:08d}.png" for stage, step, name in pictures)
    assert {stage for stage, *_ in pictures} == {"autoencoder", "prior-pixelcnn"}
    assert ends == ["done"]
    told = calls(run)
    assert told[-1] == ["close", ["done", "vq"]]
    assert [what[:2] for call, what in told if call == "examples"] == [[stage, step] for stage, step, _ in pictures]
    assert [what[:2] for call, what in told if call == "histograms"] == [["autoencoder", step] for step in (3, 6)]
    saved = [what for call, what in told if call == "checkpoint"]
    assert saved == [[stage, step, True] for stage in ("autoencoder", "prior-pixelcnn") for step in (3, 6)]


@pytest.mark.long
def test_one_that_counts(plain: Path, tmp_path: Path) -> None:
    report = Notes()
    train(compose([*WORDS, "logger=[toy_counting]"]).config, tmp_path / "run", report=report)
    assert_heard_all(tmp_path / "run")
    assert fingerprint(tmp_path / "run") == fingerprint(plain)
    assert not [text for text in report.notes if "logger" in text]
    assert Run(tmp_path / "run").components()["logger.toy_counting"]["distribution"] == "toy-plugin"


@pytest.mark.parametrize("where", ["log", "picture", "close"])
@pytest.mark.few(1)
def test_one_that_raises(where: str, plain: Path, tmp_path: Path) -> None:
    """It draws random numbers first; the one after it hears of everything."""
    words = ["logger=[toy_raising,toy_counting]", f"logger.toy_raising.where={where}"]
    report = Notes()
    train(compose([*WORDS, *words]).config, tmp_path / "run", report=report)
    assert_heard_all(tmp_path / "run")
    assert fingerprint(tmp_path / "run") == fingerprint(plain)
    (note,) = (text for text in report.notes if "logger" in text)
    assert_names(note, f"logger=toy_raising … no {where} today … toy_loggers.py")
    assert f"no {where} today" in (tmp_path / "run" / "log.txt").read_text()


def test_one_that_raises_everywhere_is_told_once() -> None:
    """After its first failure it is only closed."""
    heard = []

    class Broken(Logger):
        def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
            heard.append("log")
            raise OSError("gone")

        def picture(self, stage: str, step: int, path: Path) -> None:
            heard.append("picture")

        def close(self, status: str) -> None:
            heard.append(status)
            raise OSError("still gone")

    report = Notes()
    with Logged(report) as logged:
        logged.add([("broken", Broken())])
        for step in range(3):
            logged.metrics("train", step, {"loss": 1.0})
        logged.picture("autoencoder", 3, Path("a.png"))
    assert heard == ["log", "done"]
    (note,) = report.notes
    assert_names(note, "logger=broken … OSError: gone")


def test_one_that_cannot_be_built(tmp_path: Path) -> None:
    """Nothing is written yet, and those that are built are closed."""
    words = ["logger=[toy_counting,toy_raising]", "logger.toy_raising.where=new"]
    with pytest.raises(ToolkitError, match=r"^logger=toy_raising: no new today$"):
        train(compose([*WORDS, *words]).config, tmp_path / "run", report=Notes())
    assert not (tmp_path / "run").exists()


@pytest.mark.long
@pytest.mark.parametrize(
    ("error", "status", "stage", "step"),
    [
        (KeyboardInterrupt(), "stopped", "autoencoder", 5),
        (ToolkitError("a full disk"), "failed", "prior-pixelcnn", 4),
    ],
)
@pytest.mark.few(1)
def test_one_is_told_how_it_ended_and_goes_on(
    error: BaseException, status: str, stage: str, step: int, plain: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(type(error)):
        train(compose([*WORDS, "logger=[toy_counting]"]).config, run, report=Notes(error, stage, step))
    assert heard(run)[2] == [status]
    train(toolkit.compose(run=run), run, report=Notes())
    lines, _, ends = heard(run)
    assert ends == [status, "done"]
    again = {(line["stage"], line["split"], line["step"]): line for line in lines}
    assert [again[line["stage"], line["split"], line["step"]] for line in Run(run).log] == list(Run(run).log)
    assert fingerprint(run) == fingerprint(plain)


@pytest.mark.slow
def test_a_continuation_chooses_others(plain: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(plain, run)
    first = read_yaml(run / "config.yaml")
    assert not {"logger", "tensorboard"} & set(first), "a run without loggers says nothing of them"
    train(toolkit.compose("trainer.steps=6", run=run), run, report=Notes())
    assert not (run / "config-2.yaml").exists()
    longer = trainers("steps=7")
    train(toolkit.compose("logger=toy_counting", *longer, run=run), run, report=Notes())
    assert list(read_yaml(run / "config-2.yaml")["logger"]) == ["toy_counting"]
    lines = [line for line in Run(run).log if line["stage"] != "autoencoder" or line["step"] == 7]
    assert heard(run)[0] == lines
    train(toolkit.compose("logger=[]", run=run), run, report=Notes())
    assert "logger" not in read_yaml(run / "config-3.yaml")
    assert heard(run)[2] == ["done"]


# -- words


@pytest.mark.long
def test_loggers_are_a_list_of_parts_with_options() -> None:
    words = [*WORDS, "logger=[toy_raising,toy_counting]", "logger.toy_raising.where=close"]
    saved = compose(words).values
    assert saved["logger"] == {
        "toy_raising": {"name": "toy_raising", "where": "close"},
        "toy_counting": {"name": "toy_counting"},
    }
    assert reopen(saved, []).values == saved
    assert reopen(saved, ["logger=[]"]).values["logger"] == {}
    assert compose(WORDS).values["logger"] == {}


@pytest.mark.long
@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("logger=tensorbord", "logger=tensorbord … tensorboard?"),
        ("logger.toy_raising.where=never", "logger.toy_raising.where: … log"),
        ("logger.toy_raising.were=log", "logger.toy_raising.were: logger=toy_raising … where?"),
        ("tensorboard=true", "tensorboard: … logger=tensorboard"),
    ],
)
def test_wrong_words_are_refused(word: str, text: str) -> None:
    with pytest.raises(ToolkitError) as error:
        compose([*WORDS, "logger=[toy_raising]", word])
    assert_names(str(error.value), text)


def test_the_switch_is_refused_of_a_saved_run(plain: Path) -> None:
    with pytest.raises(ToolkitError, match="logger=tensorboard"):
        reopen(Run(plain).config_values(), ["tensorboard=true"])


def test_completion_knows_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    words = "toolkit train logger=[toy_raising] logger.toy_raising.where="
    assert command(["completion", "query", words]) == 0
    assert f"{words.rpartition(' ')[2]}picture " in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("switch", [True, False])
def test_the_switch_of_older_runs_is_a_logger(switch: bool, plain: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(plain, run)
    (run / "config.yaml").write_text(write_yaml({**read_yaml(run / "config.yaml"), "tensorboard": switch}))
    assert list(Run(run).config().logger) == (["tensorboard"] if switch else [])
    assert list(reopen(Run(run).config_values(), []).values["logger"]) == (["tensorboard"] if switch else [])


class TestCountingLogger(LoggerSuite):
    def make(self, run: Path, config: Mapping[str, Any]) -> Logger:
        return CountingLogger(run, config)


class HangingLogger(Logger):
    """Waits for ever from a call on, or when it is built."""

    def __init__(self, at: int = 0) -> None:
        self.calls, self.at = 0, at
        if not at:
            Event().wait()

    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        self.calls += 1
        if self.calls == self.at:
            Event().wait()


def test_a_logger_that_hangs_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told once; the other one hears of all the rest, and is closed."""
    monkeypatch.setattr("toolkit.logged.PATIENCE", 0.2)
    notes, other = Notes(), Recording()
    with Logged(notes) as logged:
        logged.add(iter({"stuck": HangingLogger(2), "other": other}.items()))
        for step in range(4):
            logged.metrics("train", step, {"loss": 1.0})
    (note,) = notes.notes
    assert_names(note, "logger=stuck … 0.2 s")
    assert other.heard == [0, 1, 2, 3, "done"]


def test_a_logger_that_hangs_while_it_is_built_is_named_by_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.logged.PATIENCE", 0.2)
    other = Recording()
    loggers = ((name, make()) for name, make in (("other", lambda: other), ("stuck", HangingLogger)))
    with pytest.raises(ToolkitError, match="after other has not answered"), Logged(Notes()) as logged:
        logged.add(loggers)
    assert other.heard == ["failed"]


class Recording(Logger):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        self.heard.append(step)

    def close(self, status: str) -> None:
        self.heard.append(status)
