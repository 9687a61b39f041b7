"""Where and how precisely a model computes."""

from __future__ import annotations

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
