"""How much memory a device has left, took, and is fed from."""

from __future__ import annotations

import os
import sys

import numpy as np
import torch

KEPT = 31 << 20
"""Bytes of the block from which glibc learns what to keep: it never learns of more than 32 MiB."""


def free_memory(device: torch.device) -> int:
    """Bytes that tensors can still take. What torch's allocator keeps for later tensors counts as free.

    On ``mps`` of what the system recommends to take. On a CPU what is free now, without what the system could give up;
    a GiB where it cannot say.
    """
    if device.type == "cpu":
        return _free_on_host()
    module = torch.get_device_module(device)
    if device.type == "mps":
        return max(0, int(module.recommended_max_memory()) - int(module.current_allocated_memory()))
    free = module.mem_get_info(device)[0] + module.memory_reserved(device) - module.memory_allocated(device)
    return int(free)


def peak_memory(device: torch.device) -> float:
    """GiB: the most that tensors took on a GPU, or that this process took on a CPU (0 where the system cannot say).

    On ``mps``, which keeps no record, what is taken now.
    """
    if device.type == "mps":
        return torch.mps.driver_allocated_memory() / (1 << 30)
    if device.type != "cpu":
        return float(torch.get_device_module(device).max_memory_allocated(device)) / (1 << 30)
    try:
        import resource
    except ImportError:  # on Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / (1 << 30)


def keep_memory(device: torch.device) -> None:
    """Has a CPU's allocator keep what one step of training frees for the next one.

    glibc's gives memory back to the system at every chance, which the next step takes anew page by page, until it has
    seen a larger block freed: then it keeps blocks up to that size, and twice as much in all (M_MMAP_THRESHOLD in
    mallopt(3)). Other allocators are no worse for it.
    """
    if device.type == "cpu":
        np.empty(KEPT, np.uint8)  # no tensor, which a profile or a fake mode would see


def pins(device: torch.device) -> bool:
    """Whether copies to it come from pinned memory, and so do not wait; ``mps`` shares the host's memory."""
    return device.type in ("cuda", "xpu")


def _free_on_host() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # on Windows; on a Mac
        return 1 << 30
