"""A run's ranks: one process each, started together and ended together.

Ranks report to files, as their process group may be broken when one fails. Nothing here imports torch.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory
from typing import NoReturn

from toolkit.cli.ranks import worker
from toolkit.cli.ranks.worker import RankReport
from toolkit.config import RunConfig
from toolkit.errors import RemoteError, RemoteTraceback, ToolkitError

GRACE = 3.0
"""Seconds that ranks have to end by themselves once one has failed, and again after SIGTERM."""


def train(config: RunConfig, folder: Path) -> float | None:
    """Trains with as many processes as ``trainer.ranks`` says; returns what a sweep may minimize.

    ToolkitError or RemoteError with the report of the rank that failed first. No process is left behind.
    """
    ranks = range(config.trainer.ranks)
    with TemporaryDirectory(prefix="toolkit-") as reports_folder:
        processes = [
            get_context("spawn").Process(target=worker.work, args=(r, reports_folder, config, folder)) for r in ranks
        ]
        killed: set[int] = set()
        try:
            with block_sigint():  # an interrupt during startup is delivered once the rank handles it
                for process in processes:
                    process.start()
            _wait(processes)
        finally:
            killed = _end(processes)
        reports = {r: report for r in ranks if (report := worker.read(reports_folder, r))}
    if any(process.exitcode for process in processes):
        statuses = {r: processes[r].exitcode or 0 for r in ranks if r not in killed}
        lost = sorted(killed - reports.keys())
        _fail(reports, statuses, lost, config.trainer.timeout, folder)
    return reports[0].score


def _wait(processes: Sequence[BaseProcess]) -> None:
    """Waits until all are done, or one has failed."""
    while True:
        codes = [process.exitcode for process in processes]  # read once: a process may end in between
        if any(codes) or None not in codes:
            return
        connection.wait([process.sentinel for process, code in zip(processes, codes, strict=True) if code is None])


def _end(processes: Sequence[BaseProcess]) -> set[int]:
    """Waits, sends SIGTERM, then SIGKILL; returns the ranks that did not end by themselves."""
    started = [process for process in processes if process.pid]
    try:
        _join(started)
        slow = {r for r, process in enumerate(started) if process.exitcode is None}
        for process in started:
            _send(process, signal.SIGTERM)
        _join(started)
    finally:
        for process in started:
            _send(process, signal.SIGKILL)
            process.join()
    return slow


def _join(processes: Sequence[BaseProcess]) -> None:
    until = time.monotonic() + GRACE
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))


def _send(process: BaseProcess, number: signal.Signals) -> None:
    if process.pid and process.exitcode is None:
        os.kill(process.pid, number)


def _fail(
    reports: dict[int, RankReport], statuses: dict[int, int], lost: list[int], timeout: float, folder: Path
) -> NoReturn:
    """Raises the failure that the others followed from.

    That is the earliest report of a rank's own failure; else a rank that died without a report; else one that had to
    be ended, as the others no longer waited for it; else a report of another rank's failure.
    """
    again = f"toolkit train run={quote(str(folder))} continues from the last checkpoint"
    early = sorted(reports, key=lambda rank: reports[rank].time)
    silent = [rank for rank, status in statuses.items() if status and rank not in reports]
    for rank in early:
        if reports[rank].ended in ("mistake", "failure"):
            _raise(rank, reports[rank])
    if silent:
        raise ToolkitError(f"rank {silent[0]} {_death(statuses[silent[0]])}, and the others were ended\n{again}")
    aftermath = [rank for rank in early if reports[rank].ended == "aftermath"]
    if aftermath and lost:
        raise ToolkitError(
            f"rank {lost[0]} did not answer for trainer.timeout={timeout:g} minutes, and the run was ended\n{again}"
        )
    for rank in aftermath:
        _raise(rank, reports[rank])
    raise KeyboardInterrupt


def _raise(rank: int, report: RankReport) -> NoReturn:
    kind = ToolkitError if report.ended == "mistake" else RemoteError
    text = f"rank {rank}: {report.text}" if rank else report.text
    raise kind(text) from RemoteTraceback(f"of rank {rank}\n{report.trace}")


def _death(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    why = ", which is what the system does when memory runs out" if -status == signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-status).name}{why}"


@contextmanager
def block_sigint() -> Iterator[None]:
    """Delays interrupts in this process and in those started in the block, until they unblock them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
