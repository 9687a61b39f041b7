"""One run of ``toolkit train``, in its own process or in one of several ranks, with progress on the terminal."""

from __future__ import annotations

from pathlib import Path

from toolkit import interrupts
from toolkit.cli.continuing import continues
from toolkit.cli.fresh import remove_empty
from toolkit.cli.ranks import torchrun
from toolkit.cli.report import TrainReport, show_plugin_notes
from toolkit.config import RunConfig
from toolkit.distributed import rank
from toolkit.errors import ToolkitError, printable
from toolkit.failures import explain
from toolkit.report import Silence
from toolkit.stages.run import train


def train_run(config: RunConfig, folder: Path) -> float | None:
    """Trains, and prints the folder first and last; returns what a search may minimize.

    The first SIGINT, SIGTERM or SIGUSR1 stops it after the step at hand, which is saved; a second one ends it at once.
    Under torchrun, which passes on what may have come to all processes, a third one does.
    """
    with interrupts.handled(passed_on=torchrun.is_torchrun()):
        try:
            return train(config, folder, report=Silence()) if rank() else _reported(config, folder)
        except (OSError, RuntimeError) as error:
            if isinstance(error, BrokenPipeError) or not (text := explain(error)):
                raise
            raise ToolkitError(f"{text}\n{continues(folder)}") from error


def _reported(config: RunConfig, folder: Path) -> float | None:
    show_plugin_notes()
    try:
        with TrainReport() as report:
            report.note(f"run: {folder}")
            try:
                score = train(config, folder, report=report)
            except KeyboardInterrupt:
                report.note(f"stopped; {continues(folder)}")
                raise
    except BaseException:
        remove_empty(folder)
        raise
    print(printable(str(folder)))
    return score
