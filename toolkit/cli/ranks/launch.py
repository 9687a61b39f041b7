"""A run's ranks: one process each, started together and ended together.

Ranks report to files, as their process group may be broken when one fails. Nothing here imports torch.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from toolkit import interrupts
from toolkit.cli.continuing import continues
from toolkit.cli.ranks import worker
from toolkit.cli.ranks.worker import RankReport
from toolkit.config import RunConfig
from toolkit.errors import Interrupted, RemoteError, RemoteTraceback, ToolkitError

GRACE = 3.0
"""Seconds that ranks have to end by themselves once one has failed, and again after SIGTERM."""
STOPPING_GRACE = 30.0
"""The same once one has stopped as it was asked to, and saved: nothing is wrong with the others."""


def train(config: RunConfig, folder: Path) -> float | None:
    """Trains with as many processes as ``trainer.ranks`` says; returns what a sweep may minimize.

    ToolkitError or RemoteError with the report of the rank that failed first. No process is left behind.
    """
    ranks = range(config.trainer.ranks)
    with TemporaryDirectory(prefix="toolkit-") as reports_folder:
        context = get_context("spawn")
        stops = [context.Pipe(duplex=False) for _ in ranks]
        processes = [
            context.Process(target=worker.work, args=(r, reports_folder, config, folder, stops[r][0])) for r in ranks
        ]
        killed: set[int] = set()
        with interrupts.handled(partial(_pass_on, [sender for _, sender in stops])), interrupts.deferred():
            try:
                with _blocked_signals():  # what comes during startup is delivered once the rank handles it
                    for process in processes:
                        process.start()
                _wait(processes)
            finally:
                killed = _end(processes, STOPPING_GRACE if interrupts.asked() else GRACE)
            stopped = interrupts.asked()
        reports = {r: report for r in ranks if (report := worker.read(reports_folder, r))}
    if any(process.exitcode for process in processes):
        statuses = {r: processes[r].exitcode or 0 for r in ranks if r not in killed}
        lost = sorted(killed - reports.keys())
        _fail(reports, statuses, lost, stopped, config.trainer.timeout, folder)
    if stopped:
        raise Interrupted(stopped)  # when all was done: what comes after it is not begun
    return reports[0].score


def _wait(processes: Sequence[BaseProcess]) -> None:
    """Waits until all are done, or one has failed."""
    while True:
        codes = [process.exitcode for process in processes]  # read once: a process may end in between
        if any(codes) or None not in codes:
            return
        connection.wait([process.sentinel for process, code in zip(processes, codes, strict=True) if code is None])


def _pass_on(ranks: Sequence[connection.Connection], number: int) -> None:
    """Tells the ranks of a signal. Another one would end those that the first has reached as well."""
    for sender in ranks:
        with suppress(OSError):
            sender.send(number)


def _end(processes: Sequence[BaseProcess], grace: float) -> set[int]:
    """Waits, sends SIGTERM, then SIGKILL; returns the ranks that did not end by themselves."""
    started = [process for process in processes if process.pid]
    try:
        _join(started, grace)
        slow = {r for r, process in enumerate(started) if process.exitcode is None}
        for process in started:
            _send(process, signal.SIGTERM)
        _join(started, GRACE)
    finally:
        for process in started:
            _send(process, signal.SIGKILL)
            process.join()
    return slow


def _join(processes: Sequence[BaseProcess], seconds: float) -> None:
    until = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))


def _send(process: BaseProcess, number: signal.Signals) -> None:
    if process.pid and process.exitcode is None:
        os.kill(process.pid, number)


def _fail(
    reports: dict[int, RankReport],
    statuses: dict[int, int],
    lost: list[int],
    stopped: int,
    timeout: float,
    folder: Path,
) -> NoReturn:
    """Raises the failure that the others followed from.

    That is the earliest report of a rank's own failure; else a rank that died without a report; else one that had to
    be ended, as the others no longer waited for it; else a report of another rank's failure. Where the signal
    ``stopped`` came to the command, that is no failure.
    """
    again = continues(folder)
    early = sorted(reports, key=lambda rank: reports[rank].time)
    silent = [rank for rank, status in statuses.items() if status and rank not in reports]
    for rank in early:
        if reports[rank].ended in ("mistake", "failure"):
            _raise(rank, reports[rank])
    ended = [rank for rank in early if reports[rank].ended == "stopped" and rank in statuses]
    if stopped and (ended or not silent):
        raise Interrupted(stopped)
    if ended:
        rank = next((rank for rank in ended if reports[rank].own), ended[0])
        name = signal.Signals(reports[rank].signal).name
        raise ToolkitError(f"rank {rank} was ended by {name}, and the others stopped with it\n{again}")
    if silent:
        raise ToolkitError(f"rank {silent[0]} {_death(statuses[silent[0]])}, and the others were ended\n{again}")
    aftermath = [rank for rank in early if reports[rank].ended == "aftermath"]
    if aftermath and lost:
        raise ToolkitError(
            f"rank {lost[0]} did not answer for trainer.timeout={timeout:g} minutes, and the run was ended\n{again}"
        )
    for rank in aftermath:
        _raise(rank, reports[rank])
    raise RemoteError(f"the ranks ended without a report\n{again}")


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
def _blocked_signals() -> Iterator[None]:
    """Delays these signals in this process and in those started in the block, until they unblock them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, interrupts.STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
