"""What is seen during training: a bar on a terminal, lines elsewhere, and the file that keeps them."""

from __future__ import annotations

import logging
import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from toolkit import ToolkitError, registry
from toolkit.cli import report as cli
from toolkit.report import Lines, LogFile, Silence, duration


def test_a_terminal_shows_a_bar_with_the_newest_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validations and notes stay above it; nothing in them is taken for markup."""
    shown = StringIO()
    monkeypatch.setattr(
        cli,
        "Console",
        lambda **words: Console(file=shown, force_terminal=True, width=110, highlight=words["highlight"]),
    )
    with cli.TrainReport() as report:
        report.begin("autoencoder", 0, 10)
        report.metrics("train", 5, {"loss": 0.5, "steps_per_second": 3.0})
        report.step(5)
        report.metrics("val", 5, {"nll": 1.5})
        report.note("a path [bold]/x")
        report.begin("codes of train", 0, 4)
        report.step(4)
    text = shown.getvalue()
    for part in ("5/10", "loss 0.5", "autoencoder val 5: nll 1.5", "a path [bold]/x", "codes of train", "4/4"):
        assert part in text, part


def test_elsewhere_it_prints_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with cli.TrainReport() as report:
        report.begin("autoencoder", 2, 10)
        report.step(3)
        report.metrics("train", 4, {"loss": 0.5, "steps_per_second": 3.0})
    lines = capsys.readouterr().out.splitlines()
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d .*", line) for line in lines)
    assert [line[9:] for line in lines] == [
        "autoencoder: from 2 to 10",
        "autoencoder train step 4/10: loss 0.5  3 steps/s",
    ]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test sets."""
    now = [1000.0]
    monkeypatch.setattr("toolkit.report.time.monotonic", lambda: now[0])
    return now


def test_a_minute_without_a_line_has_one(
    clock: list[float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the screen and in the file: how far it is, of how much, and how long the rest takes at this speed."""
    with cli.TrainReport() as screen, LogFile(screen) as report:
        report.open(tmp_path / "log.txt")
        report.begin("autoencoder", 100, 50_000)
        for done in range(101, 301):
            clock[0] += 0.9
            report.step(done)
            if done == 180:
                metrics = {"loss": 2.0, "steps_per_second": 1.1, "seconds_left": 45_000.0}
                report.metrics("train", done, metrics)
        report.metrics("val", 300, {"nll": 1.0})
    expected = [
        "autoencoder: from 100 to 50000",
        "autoencoder: 167/50000, 12 h 27 min left",
        "autoencoder train step 180/50000: loss 2  1.1 steps/s  12 h 30 min left",
        "autoencoder: 247/50000, 12 h 26 min left",
        "autoencoder val step 300/50000: nll 1",
    ]
    assert [line[9:] for line in capsys.readouterr().out.splitlines()] == expected
    assert [line[20:] for line in (tmp_path / "log.txt").read_text().splitlines()] == expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (99, "99 s"),
        (100, "2 min"),
        (5900, "98 min"),
        (6000, "1 h 40 min"),
        (3 * 3600 + 290, "3 h 05 min"),
        (52 * 3600, "2 d 4 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_long_work_of_other_commands_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("toolkit.cli.report.time.monotonic", lambda: now[0])
    with cli.progress("encode", 100) as report:
        for done in (1, 20, 30, 40, 100):
            now[0] = done / 2
            report(done)
    assert capsys.readouterr().err.splitlines() == [
        "encode: 20 of 100, 40 s left",
        "encode: 40 of 100, 30 s left",
        "encode: 100 of 100",
    ]


def test_the_file_has_what_came_before_it_what_packages_log_and_what_ended_it(tmp_path: Path) -> None:
    path, package = tmp_path / "log.txt", logging.getLogger(registry.packages()[0])

    def run() -> None:
        with LogFile(Silence()) as report:
            package.warning("7 files are skipped")
            report.open(path)
            report.note("begins")
            raise ToolkitError("a file is cut short")

    with pytest.raises(ToolkitError):
        run()
    package.warning("not of this run")
    lines = [line[20:] for line in path.read_text().splitlines()]
    assert lines == ["note: 7 files are skipped", "begins", "ended: a file is cut short"]


def test_what_packages_log_is_shown_once_by_each_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as how a folder was split, which every run of a comparison reads again."""
    package = logging.getLogger(registry.packages()[0])
    monkeypatch.setattr(package, "handlers", [])
    for _ in range(2):
        cli.show_plugin_notes()
        for text in ("90 train, 5 val", "skipped", "90 train, 5 val"):
            package.info(text)
    assert capsys.readouterr().err.splitlines() == ["note: 90 train, 5 val", "note: skipped"] * 2


def test_a_file_that_cannot_be_written_ends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LogFile(Lines()) as report:
        report.open(tmp_path / "no such folder" / "log.txt")
        report.note("goes on")
    assert capsys.readouterr().out == "goes on\n"
