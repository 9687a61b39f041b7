"""Where and how precisely a model computes."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

import torch

from toolkit.errors import ToolkitError


def choose_device(name: str) -> torch.device:
    """``auto`` is the GPU where there is one. ToolkitError for cuda without one."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ToolkitError("device=cuda: this machine has no GPU that torch can use: choose device=cpu or device=auto")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and available) else "cpu")


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """``bf16`` computes matrix products and convolutions in bfloat16; weights stay float32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def peak_memory(device: torch.device) -> float:
    """GiB: the most that tensors took on a GPU, or that this process took on a CPU (0 where the system cannot say)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / (1 << 30)
    try:
        import resource
    except ImportError:  # on Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / (1 << 30)
