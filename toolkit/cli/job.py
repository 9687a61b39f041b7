"""One run of ``toolkit train``, in its own process or in one of several ranks, with progress on the terminal."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from toolkit.cli.fresh import remove_empty
from toolkit.cli.report import TrainReport, show_plugin_notes
from toolkit.config import RunConfig
from toolkit.distributed import rank
from toolkit.report import Silence
from toolkit.stages import train


def train_run(config: RunConfig, folder: Path) -> float | None:
    """Trains, and prints the folder at the end; returns what a search may minimize."""
    if rank():
        return train(config, folder, report=Silence())
    show_plugin_notes()
    try:
        with TrainReport() as report:
            try:
                score = train(config, folder, report=report)
            except KeyboardInterrupt:
                report.note(f"stopped; toolkit train run={quote(str(folder))} continues from the last checkpoint")
                raise
    except Exception:
        remove_empty(folder)
        raise
    print(folder)
    return score
