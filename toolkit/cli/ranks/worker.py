"""One rank's process: it meets the others, trains, and reports how it ended."""

from __future__ import annotations

import atexit
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
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Literal, NoReturn

from toolkit.blame import blame
from toolkit.config import RunConfig
from toolkit.errors import ToolkitError


@dataclass(frozen=True)
class Report:
    """How a rank ended; an aftermath is the end of a rank that lost another."""

    ended: Literal["done", "mistake", "failure", "aftermath", "stopped"]
    time: float
    text: str = ""
    trace: str = ""
    score: float | None = None


def work(rank: int, aside: str, config: RunConfig, folder: Path) -> None:
    """The whole life of a rank; ``aside`` is the folder where ranks meet and report."""
    threading.Thread(target=_end_with_parent, args=(aside,), daemon=True).start()
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as in the background of a script
        signal.signal(signal.SIGINT, _stop)
    if rank:
        silence_output()
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        report = Report("done", time.time(), score=_train(rank, f"file://{aside}/meeting", config, folder))
    except BaseException as error:
        report = _report(error)
    _write(aside, rank, report)
    hard_exit(report.ended != "done")


def read(aside: str, rank: int) -> Report | None:
    """A rank's report, if it wrote one."""
    path = _path(aside, rank)
    return Report(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def silence_output() -> None:
    """For the ranks beside the first, which prints and is interrupted for all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def hard_exit(status: int) -> NoReturn:
    """Ends the process before the interpreter is taken apart, which a group's threads may turn into an abort."""
    if status == 0:
        atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _train(rank: int, meeting: str, config: RunConfig, folder: Path) -> float | None:
    import torch

    from toolkit import distributed
    from toolkit.cli.job import train_run

    ranks = config.trainer.ranks
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // ranks))
    with distributed.process_group(meeting, rank, ranks, rank):
        return train_run(config, folder)


def _report(error: BaseException) -> Report:
    if isinstance(error, KeyboardInterrupt):  # before torch is asked for: what broke into its import leaves it halved
        return Report("stopped", time.time())
    from toolkit.distributed import is_peer_failure

    trace = "".join(traceback.format_exception(error))
    if is_peer_failure(error):
        return Report("aftermath", time.time(), blame(error), trace)
    if isinstance(error, ToolkitError):
        return Report("mistake", time.time(), str(error), trace)
    return Report("failure", time.time(), blame(error), trace)


def _write(aside: str, rank: int, report: Report) -> None:
    partial = _path(aside, rank).with_suffix(".partial")
    partial.write_text(json.dumps(asdict(report)), encoding="utf-8")
    partial.replace(_path(aside, rank))


def _path(aside: str, rank: int) -> Path:
    return Path(aside) / f"rank-{rank}.json"


def _end_with_parent(aside: str) -> None:
    """Whoever starts ranks ends them and tidies up; where it was killed, nobody else is left to."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        shutil.rmtree(aside, ignore_errors=True)
        os._exit(1)


def _stop(*_: object) -> None:
    """Once: who is asked again is on the way."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise KeyboardInterrupt
