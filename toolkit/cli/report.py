"""What the user sees during long work, and the tables afterwards."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Self, final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from toolkit import registry
from toolkit.errors import printable
from toolkit.report import Lines, brief, duration

WORKERS = "processes that read the data; null: up to 4 on a GPU, by its cores and how much there is to read; else 0"
COMPILE = "a minute of preparation, then faster steps: for long samples, few at a time"
"""Help of the option that compiles sampling position by position."""

EVERY = 10.0
"""Seconds between two lines about long work, where there is no terminal."""


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.3g}/s", style="progress.data.speed")


def _bars(console: Console) -> Progress:
    """On a narrow terminal only the metrics are cut short."""
    return Progress(
        TextColumn("[bold]{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=12),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        _Rate(table_column=Column(no_wrap=True, min_width=6)),
        TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[metrics]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
        console=console,
        expand=True,
    )


@final
class TrainReport:
    """A progress bar with the newest metrics on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        console = Console(stderr=False, highlight=False, soft_wrap=True)
        self._bars = _bars(console) if console.is_terminal else None
        self._lines = Lines()
        self._task = TaskID(0)

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars:
            self._bars.stop()

    def begin(self, stage: str, done: int, steps: int) -> None:
        if self._bars:
            self._task = self._bars.add_task(stage, total=steps, completed=done, metrics="")
        else:
            self._lines.begin(stage, done, steps)

    def step(self, done: int) -> None:
        if self._bars:
            self._bars.update(self._task, completed=done)
        else:
            self._lines.step(done)

    def metrics(self, split: str, step: int, metrics: Mapping[str, float]) -> None:
        if not self._bars:
            self._lines.metrics(split, step, metrics)
        elif split == "train":
            self._bars.update(self._task, metrics=brief(metrics).rpartition("  ")[0])  # the bar has the speed
        else:
            stage = self._bars.tasks[self._task].description
            self.note(f"{stage} {split} {step}: {brief(metrics)}")

    def note(self, text: str) -> None:
        if self._bars:
            self._bars.console.print(printable(text), markup=False)
        else:
            self._lines.note(text)


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, lines elsewhere; yields a function to call with how much is done."""
    console = Console(stderr=True)
    if not console.is_terminal:
        lines = _Lines()
        yield lambda done: lines(title, done, total)
        return
    with _bars(console) as bars:
        task = bars.add_task(title, total=total, metrics="")
        yield lambda done: bars.update(task, completed=done)


@contextmanager
def watching() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for each thing that is sampled in turn, or a line now and then where there is no terminal.

    Yields a function to call with what is sampled, how much of it is done, and how much there is.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    with _bars(console) as bars:
        tasks: dict[str, TaskID] = {}

        def on_progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, metrics="")
            bars.update(tasks[what], completed=done, total=total)

        yield on_progress


class _Lines:
    """Prints what is being done, how much of it is and how long the rest takes, every ``EVERY`` seconds."""

    def __init__(self) -> None:
        self.printed = time.monotonic()
        self.began: dict[str, float] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        began = self.began.setdefault(what, self.printed)
        if now - self.printed >= EVERY:
            self.printed = now
            left = f", {duration((now - began) / done * (total - done))} left" if 0 < done < total else ""
            print(f"{what}: {done} of {total}{left}", file=sys.stderr)


def show_plugin_notes() -> None:
    """Shows what the installed parts log, such as how a folder was split, as notes on standard error, each once."""
    handler = _Notes()
    for package in registry.packages():
        logger = logging.getLogger(package)
        for shown in logger.handlers:
            if isinstance(shown, _Notes):  # of an earlier command in this process
                shown.texts.clear()
        if not logger.handlers:
            logger.setLevel(logging.INFO)
            logger.addHandler(handler)


class _Notes(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts = set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self.texts:
            self.texts.add(text)
            notes([text])


def notes(texts: list[str]) -> None:
    """One line each on standard error."""
    for text in texts:
        print(f"note: {printable(text)}", file=sys.stderr)


def table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A table on standard output; the first column is text, the others are numbers or text."""
    grid = Table(title=printable(title), title_justify="left", title_style="bold", header_style="bold")
    for i, column in enumerate(columns):
        grid.add_column(printable(column), justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(printable(cell)) for cell in row))
    Console(highlight=False, width=None if sys.stdout.isatty() else 120).print(grid)


def number(value: float) -> str:
    """Small numbers with four decimals, large ones with separated thousands; whole numbers without decimals."""
    whole = float(value).is_integer() or abs(value) >= 100
    return f"{round(value, 1):,.10g}" if whole else f"{value:,.4f}"
