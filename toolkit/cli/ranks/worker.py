"""One rank's process: it joins the others, trains, and reports how it ended."""

from __future__ import annotations

import atexit
import gc
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from dataclasses import asdict, dataclass
from multiprocessing import active_children, connection, parent_process
from pathlib import Path
from typing import Any, Literal, NoReturn

from toolkit import interrupts
from toolkit.blame import blame
from toolkit.config import RunConfig
from toolkit.errors import ToolkitError


@dataclass(frozen=True)
class RankReport:
    """How a rank ended; ``aftermath`` where another rank failed first."""

    ended: Literal["done", "mistake", "failure", "aftermath", "stopped"]
    time: float
    text: str = ""
    trace: str = ""
    score: float | None = None
    signal: int = 0
    """The one that stopped it."""
    own: bool = False
    """Whether that came to this rank, and not to another one."""


def work(rank: int, shared: str, config: RunConfig, folder: Path, stops: connection.Connection) -> None:
    """Runs a rank from start to end; ``shared`` is the folder where ranks meet and report.

    ``stops`` gives the number of a signal that the command got, and that this process may have got, too.
    """
    interrupts.install()
    threading.Thread(target=_follow_parent, args=(shared, stops), daemon=True).start()
    if rank:
        silence_output()
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, interrupts.STOPPING)
        report = RankReport("done", time.time(), score=_train(rank, f"file://{shared}/meeting", config, folder))
    except BaseException as error:
        report = _report(error)
        _end_loading()
    _write(shared, rank, report)
    gc.collect()  # semaphores that are still held would be called leaked on the terminal
    hard_exit(report.ended != "done")


def read(shared: str, rank: int) -> RankReport | None:
    """A rank's report, if it wrote one."""
    path = _path(shared, rank)
    return RankReport(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def silence_output() -> None:
    """For the ranks other than 0, which prints and handles interrupts for all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def hard_exit(status: int) -> NoReturn:
    """Exits without finalizing the interpreter, which the process group's threads may turn into an abort."""
    if status == 0:
        atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _train(rank: int, url: str, config: RunConfig, folder: Path) -> float | None:
    import torch

    from toolkit import distributed
    from toolkit.cli.job import train_run

    ranks = config.trainer.ranks
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // ranks))
    with distributed.process_group(url, rank, ranks, rank):
        return train_run(config, folder)


def _report(error: BaseException) -> RankReport:
    if isinstance(error, KeyboardInterrupt):  # before torch is imported: an interrupted import leaves it incomplete
        number = getattr(error, "number", signal.SIGINT)
        return RankReport("stopped", time.time(), signal=number, own=bool(interrupts.asked()))
    from toolkit.peers import is_peer_failure

    trace = "".join(traceback.format_exception(error))
    if is_peer_failure(error):
        return RankReport("aftermath", time.time(), blame(error), trace)
    if isinstance(error, ToolkitError):
        return RankReport("mistake", time.time(), str(error), trace)
    return RankReport("failure", time.time(), blame(error), trace)


def _end_loading() -> None:
    """Ends the processes that load data, for which torch would wait once the error is gone; and lets no signal in."""
    for number in interrupts.STOPPING:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where torch raises an error for each of them
    for process in active_children():
        process.kill()


def _write(shared: str, rank: int, report: RankReport) -> None:
    partial = _path(shared, rank).with_suffix(".partial")
    partial.write_text(json.dumps(asdict(report)), encoding="utf-8")
    partial.replace(_path(shared, rank))


def _path(shared: str, rank: int) -> Path:
    return Path(shared) / f"rank-{rank}.json"


def _follow_parent(shared: str, stops: connection.Connection) -> None:
    """Passes on the signal that stops the command, and ends this rank when the command is gone.

    The command usually ends its ranks, unless it was killed.
    """
    parent = parent_process()
    if parent is None:
        return
    waiting: list[Any] = [parent.sentinel, stops]
    while parent.sentinel not in connection.wait(waiting):
        try:
            interrupts.ask(stops.recv())
        except EOFError:
            waiting.remove(stops)
    shutil.rmtree(shared, ignore_errors=True)
    os._exit(1)
