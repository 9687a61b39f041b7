"""How many processes load data."""

from __future__ import annotations

import os

import torch

from toolkit.device import pins
from toolkit.distributed import local_ranks

MOST = 4
"""Processes, unless more are asked for: from there on a GPU rarely waits for them."""

BATCHES = 8
"""Batches for which a process is worth its start: that took 60 ms, as reading two batches of 64 small images did."""


def default_workers(device: torch.device, batches: int | None = None) -> int:
    """How many suit an order of so many batches (None: it never ends) for a device.

    On a CPU none, as they would take the cores that train, nor on a Mac, which starts them slowly. Beside a GPU no more
    than there are cores for each rank of this machine, and none for a handful of batches.
    """
    if not pins(device):
        return 0
    most = min(MOST, cores() // local_ranks())
    return most if batches is None else min(most, batches // BATCHES)


def cores() -> int:
    """Cores that this process may use, which a scheduler or a container may have limited."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
