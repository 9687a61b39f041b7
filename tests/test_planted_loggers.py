"""The suite of loggers catches what goes wrong in parts of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from pathlib import Path
from random import shuffle
from typing import Any

import pytest
import torch
from planted import assert_catches

from toolkit.logger import Logger, Status
from toolkit.testing.logger import CALLS, METRICS, LoggerSuite


class Lines(Logger):
    """A file of lines, to be broken."""

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        self.run, self.config, self.last = run, config, 0

    def write(self, *words: object) -> None:
        with (self.run / "lines.txt").open("a", encoding="utf-8") as file:
            print(*words, file=file)

    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        self.write(stage, split, step, dict(metrics))

    def picture(self, stage: str, step: int, path: Path) -> None:
        self.write(stage, step, path.stat().st_size)

    def close(self, status: Status) -> None:
        if self.run.exists():
            self.write(status)


class LoggerCase(LoggerSuite):
    def __init__(self, part: type[Lines] = Lines) -> None:
        self.of = part

    def make(self, run: Path, config: Mapping[str, Any]) -> Logger:
        return self.of(run, config)


class WritingEarly(Lines):
    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        super().__init__(run, config)
        run.mkdir(parents=True, exist_ok=True)


class Once(Lines):
    """Takes a folder of its own, which a continuation finds taken."""

    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        if not self.last:
            (self.run / "once").mkdir()
        self.last = 1


class OnlyUpwards(Lines):
    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        if step < self.last:
            raise ValueError(f"step {step} after {self.last}")
        self.last = step


class AFileForEachName(Lines):
    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            (self.run / name).write_text(str(value))


class WholeNumbers(Lines):
    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        self.write(*(round(value) for value in metrics.values()))


class Outside(Lines):
    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        (self.run.parent / "mine").mkdir(exist_ok=True)


class ClosingAFile(Lines):
    def close(self, status: Status) -> None:
        super().close(status)
        (self.run / "lines.txt").rename(self.run / f"{status}.txt")
        if self.last:
            raise ValueError("closed already")
        self.last = 1


class Taking(Lines):
    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        metrics.pop("loss", 0.0)  # type: ignore[attr-defined]


class MovingPictures(Lines):
    def picture(self, stage: str, step: int, path: Path) -> None:
        path.rename(path.with_suffix(".old"))


class Adding(Lines):
    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        super().__init__(run, config)
        config["logged"] = True  # type: ignore[index]


class Shuffling(Lines):
    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        shuffle(list(metrics))


class NamedAtRandom(Lines):
    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        self.write(torch.randint(1000, ()))


class Linking(Lines):
    def picture(self, stage: str, step: int, path: Path) -> None:
        newest = self.run / "newest.png"
        newest.unlink(missing_ok=True)
        newest.symlink_to(path)


@pytest.mark.parametrize(
    ("broken", "law", "words"),
    [
        (WritingEarly, "its constructor writes nothing", {}),
        (OnlyUpwards, "calls come in any order", {"calls": CALLS}),
        (AFileForEachName, "metrics have any name and value", {"metrics": METRICS}),
        (WholeNumbers, "metrics have any name and value", {"metrics": {"a": nan}}),
        (Outside, "metrics have any name and value", {"metrics": {}}),
        (ClosingAFile, "closing twice is harmless", {"status": "failed"}),
        (Once, "a run that is continued has another one", {}),
        (Taking, "what it is given stays as it is", {}),
        (MovingPictures, "what it is given stays as it is", {}),
        (Adding, "what it is given stays as it is", {}),
        (Shuffling, "it draws no random numbers", {}),
        (NamedAtRandom, "it draws no random numbers", {}),
        (Linking, "it leaves no links", {}),
    ],
)
def test_a_broken_logger_is_caught(broken: type[Lines], law: str, words: dict[str, Any], tmp_path: Path) -> None:
    assert_catches(LoggerCase(), LoggerCase(broken), law, **words, tmp_path=tmp_path)
