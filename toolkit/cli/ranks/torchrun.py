"""Under torchrun: rank 0 runs the command, and the other ranks join its jobs.

They compose nothing, create no folder and print nothing. torchrun decides how many ranks there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from toolkit.cli.continuing import continues
from toolkit.cli.ranks.worker import hard_exit, silence_output
from toolkit.config import RunConfig
from toolkit.errors import Interrupted, ToolkitError

_unfinished: list[Path] = []
"""The folder of the current job. One that stays has failed, and its ranks are out of sync."""


def is_torchrun() -> bool:
    """Whether torchrun, or what sets the same variables, started this process as one of several."""
    return {"RANK", "LOCAL_RANK", "MASTER_ADDR"} <= os.environ.keys() and int(os.environ.get("WORLD_SIZE", "1")) > 1


def starts_again() -> bool:
    """Whether what started this process starts it again where it is lost, so that its command also continues its run:
    torchrun with ``--max-restarts``, or Slurm, of a job that was put back into its queue.
    """
    elastic = is_torchrun() and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0
    return elastic or int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0


def join_ranks(command: Callable[[], int]) -> NoReturn:
    """Runs the command on rank 0 and its jobs on all, and exits with its status. The rank that fails first reports."""
    from toolkit import distributed
    from toolkit.peers import is_peer_failure

    rank, ranks, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if rank:
        silence_output()
    try:
        with distributed.process_group("env://", rank, ranks, local_rank):
            status = _run_jobs() if rank else _run_command(command)
    except Exception as error:
        if rank == 0 or not is_peer_failure(error):
            raise
        status = int(starts_again())  # an agent all of whose ranks have ended well would not start them again
    except Interrupted as stop:
        if rank == 0:  # which says so
            raise
        status = 128 + stop.number
    hard_exit(status)


def train(config: RunConfig, folder: Path) -> float | None:
    """Runs one job on all ranks; called on rank 0."""
    from toolkit import distributed
    from toolkit.cli.job import train_run
    from toolkit.peers import is_peer_failure

    if distributed.ranks() == 1:  # a launcher's process: it has torchrun's variables, but no process group
        raise ToolkitError(
            "under torchrun the runs of a sweep run one after another: leave hydra/launcher out, or start without"
            f" torchrun and with trainer.ranks={os.environ['WORLD_SIZE']}"
        )
    if _unfinished:
        raise ToolkitError(f"not started: the other ranks were lost with {_unfinished[0]}")
    config = replace(config, trainer=replace(config.trainer, ranks=distributed.ranks()))
    distributed.broadcast_object((config, folder))
    _unfinished.append(folder)
    try:
        score = train_run(config, folder)
    except Exception as error:
        if not is_peer_failure(error):
            raise
        wait_for_failure()
        raise ToolkitError(f"another rank failed\n{continues(folder)}") from error
    _unfinished.clear()
    return score


def _run_command(command: Callable[[], int]) -> int:
    from toolkit import distributed

    try:
        return command()
    finally:
        if not _unfinished:
            distributed.broadcast_object(None)


def _run_jobs() -> int:
    from toolkit import distributed
    from toolkit.cli.job import train_run

    while job := distributed.broadcast_object(None):
        train_run(*job)
    return 0


def wait_for_failure() -> None:
    """Waits until the failed rank has reported and is gone: torchrun ends all ranks when the first one exits."""
    from toolkit import distributed

    with suppress(Exception):
        distributed.on_rank0(lambda: None)
