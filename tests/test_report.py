"""What is seen during training: a bar on a terminal, lines elsewhere, and the file that keeps them."""

from __future__ import annotations

import logging
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from toolkit import ToolkitError, registry
from toolkit.cli import report as cli
from toolkit.report import Lines, LogFile, Silence


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
    assert capsys.readouterr().out.splitlines() == [
        "autoencoder: from 2 to 10",
        "autoencoder train 4: loss 0.5  3 steps/s",
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


def test_a_file_that_cannot_be_written_ends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LogFile(Lines()) as report:
        report.open(tmp_path / "no such folder" / "log.txt")
        report.note("goes on")
    assert capsys.readouterr().out == "goes on\n"
