"""A run's page, written when its training ends."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import final

from toolkit.logger import Logger, Status


@final
class ReportLogger(Logger):
    """Writes ``report.html`` into the run's folder when training ends, however it ends: the page of
    ``toolkit report``, with curves, pictures, metrics and configuration in one file."""

    def __init__(self, run: Path) -> None:
        self.run, self.closed = run, False

    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        """Nothing: the page is made of what the run's own log holds."""

    def close(self, status: Status) -> None:
        from toolkit.page.write import write_page
        from toolkit.runs.folder import Run

        if not self.closed and (self.run / "config.yaml").is_file():
            self.closed = True
            write_page(Run.open(self.run))
