"""How precisely a device computes: what networks are computed in, and the widest numbers that it has."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

NARROW = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""By ``precision``, what matrix products and convolutions are computed in."""


def resolve_precision(precision: str, device: torch.device) -> str:
    """``fp32``, ``bf16`` or ``fp16``. ``auto``: bf16 where the device is built for it, else fp32."""
    if precision != "auto":
        return precision
    return "bf16" if built_for_bf16(device) else "fp32"


def built_for_bf16(device: torch.device) -> bool:
    """Whether a GPU has units for bfloat16, rather than emulating it; never of a CPU, and of ``mps`` it is unknown."""
    if device.type not in ("cuda", "xpu"):
        return False
    return bool(torch.get_device_module(device).is_bf16_supported(including_emulation=False))


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Matrix products and convolutions in bfloat16 or float16, if that is the precision; weights stay float32."""
    dtype = NARROW.get(resolve_precision(precision, device))
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def has_float64(device: torch.device) -> bool:
    """Not so of ``mps``, and of an ``xpu`` without units for it."""
    if device.type == "xpu":
        return bool(torch.xpu.get_device_properties(device).has_fp64)
    return device.type != "mps"


def wide(device: torch.device) -> torch.dtype:
    """The widest floats of a device: float64, or float32."""
    return torch.float64 if has_float64(device) else torch.float32


def double(t: Tensor) -> Tensor:
    """In float64: on its device, or on the CPU where that has none."""
    return t.double() if has_float64(t.device) else t.cpu().double()
