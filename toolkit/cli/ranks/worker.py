"""One rank's process: it joins the others, trains, and reports how it ended."""

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
class RankReport:
    """How a rank ended; ``aftermath`` where another rank failed first."""

    ended: Literal["done", "mistake", "failure", "aftermath", "stopped"]
    time: float
    text: str = ""
    trace: str = ""
    score: float | None = None


def work(rank: int, shared: str, config: RunConfig, folder: Path) -> None:
    """Runs a rank from start to end; ``shared`` is the folder where ranks meet and report."""
    threading.Thread(target=_end_with_parent, args=(shared,), daemon=True).start()
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as in a script's background job
        signal.signal(signal.SIGINT, _stop)
    if rank:
        silence_output()
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        report = RankReport("done", time.time(), score=_train(rank, f"file://{shared}/meeting", config, folder))
    except BaseException as error:
        report = _report(error)
    _write(shared, rank, report)
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
        return RankReport("stopped", time.time())
    from toolkit.distributed import is_peer_failure

    trace = "".join(traceback.format_exception(error))
    if is_peer_failure(error):
        return RankReport("aftermath", time.time(), blame(error), trace)
    if isinstance(error, ToolkitError):
        return RankReport("mistake", time.time(), str(error), trace)
    return RankReport("failure", time.time(), blame(error), trace)


def _write(shared: str, rank: int, report: RankReport) -> None:
    partial = _path(shared, rank).with_suffix(".partial")
    partial.write_text(json.dumps(asdict(report)), encoding="utf-8")
    partial.replace(_path(shared, rank))


def _path(shared: str, rank: int) -> Path:
    return Path(shared) / f"rank-{rank}.json"


def _end_with_parent(shared: str) -> None:
    """Ends this rank when the process that started it is gone: that usually ends the ranks, unless it was killed."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        shutil.rmtree(shared, ignore_errors=True)
        os._exit(1)


def _stop(*_: object) -> None:
    """Stops once; a further interrupt is ignored, a further SIGTERM kills."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise KeyboardInterrupt
