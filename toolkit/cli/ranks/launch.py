"""A run's ranks: one process each, started together and ended together.

Ranks report to files, because what they share may be broken when one fails. Nothing here imports torch.
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
from toolkit.cli.ranks.worker import Report
from toolkit.config import RunConfig
from toolkit.errors import RemoteError, RemoteTraceback, ToolkitError

GRACE = 3.0
"""Seconds for ranks to end by themselves once one has failed, and again once they are asked to."""


def train(config: RunConfig, folder: Path) -> float | None:
    """Trains with as many processes as ``trainer.ranks`` says; gives what a sweep may minimise.

    ToolkitError or Elsewhere, with what the rank told that failed first. No process is left behind.
    """
    ranks = range(config.trainer.ranks)
    with TemporaryDirectory(prefix="toolkit-") as aside:
        processes = [get_context("spawn").Process(target=worker.work, args=(r, aside, config, folder)) for r in ranks]
        killed: set[int] = set()
        try:
            with block_sigint():  # who interrupts a rank that does not listen yet is heard when it does
                for process in processes:
                    process.start()
            _wait(processes)
        finally:
            killed = _end(processes)
        reports = {r: report for r in ranks if (report := worker.read(aside, r))}
    if any(process.exitcode for process in processes):
        _fail(reports, {r: processes[r].exitcode or 0 for r in ranks if r not in killed}, folder)
    return reports[0].score


def _wait(processes: Sequence[BaseProcess]) -> None:
    """Until all are done, or one has failed."""
    while True:
        codes = [process.exitcode for process in processes]  # asked once: one may end between two questions
        if any(codes) or None not in codes:
            return
        connection.wait([process.sentinel for process, code in zip(processes, codes, strict=True) if code is None])


def _end(processes: Sequence[BaseProcess]) -> set[int]:
    """Waits, asks, forces; the numbers of those that had to be asked."""
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


def _fail(reports: dict[int, Report], statuses: dict[int, int], folder: Path) -> NoReturn:
    """Raises what the other failures followed from.

    That is what a rank tells of itself, and of several the earliest; else a death without a word; else what is only
    told of others.
    """
    early = sorted(reports, key=lambda rank: reports[rank].time)
    silent = [rank for rank, status in statuses.items() if status and rank not in reports]
    for rank in early:
        if reports[rank].ended in ("mistake", "failure"):
            _raise(rank, reports[rank])
    if silent:
        raise ToolkitError(
            f"rank {silent[0]} {_death(statuses[silent[0]])}, and the others were ended\n"
            f"toolkit train run={quote(str(folder))} goes on from the last checkpoint"
        )
    for rank in early:
        if reports[rank].ended == "aftermath":
            _raise(rank, reports[rank])
    raise KeyboardInterrupt


def _raise(rank: int, report: Report) -> NoReturn:
    kind = ToolkitError if report.ended == "mistake" else RemoteError
    text = f"rank {rank}: {report.text}" if rank else report.text
    raise kind(text) from RemoteTraceback(f"of rank {rank}\n{report.trace}")


def _death(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    why = ", which is what the system does where memory runs out" if -status == signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-status).name}{why}"


@contextmanager
def block_sigint() -> Iterator[None]:
    """Interrupts wait, here and in processes started here, until they are listened for."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
