"""Metrics as a table."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import final

from toolkit.logger import Logger, Status


@final
class CSVLogger(Logger):
    """Writes ``metrics.csv`` into the run's folder, for spreadsheets and data frames: a row for each line of the run's
    log, and a column for each metric of any stage. It is written at each validation and when training ends."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        if split == "val":
            self._write()

    def close(self, status: Status) -> None:
        self._write()

    def _write(self) -> None:
        from toolkit.runs.log import Log
        from toolkit.writing import replacing

        lines = list(Log(self.run / "metrics.jsonl"))
        if lines:
            columns = list(dict.fromkeys(name for line in lines for name in line))
            with (
                replacing(self.run / "metrics.csv") as partial,
                partial.open("x", newline="", encoding="utf-8") as file,
            ):
                table = csv.DictWriter(file, columns)
                table.writeheader()
                table.writerows(lines)
