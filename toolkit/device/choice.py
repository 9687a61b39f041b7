"""Which device a name stands for."""

from __future__ import annotations

import re
from types import ModuleType

import torch

from toolkit.errors import ToolkitError

NAMES = re.compile(r"auto|cpu|mps|(cuda|xpu)(:\d{1,3})?")
WHAT = {"cuda": "GPU", "xpu": "Intel GPU", "mps": "Apple GPU"}
"""By kind of accelerator, in the order in which they are looked for."""


def choose_device(name: str) -> torch.device:
    """``auto`` is a CUDA GPU where there is one, else the CPU; ``cuda``, ``xpu`` and ``mps`` are there by name.

    ``cuda:1`` is the second of several, which then is torch's current one: what is asked of no device in particular,
    such as the state of the random numbers, is asked of that. ToolkitError for what is not there.
    """
    if not NAMES.fullmatch(name):
        raise ToolkitError(
            f"device={name}: choose auto, cpu, cuda, mps or xpu, or one of several by its number, such as cuda:1"
        )
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind == "cpu":
        return torch.device(kind)
    if not is_available(kind):
        raise ToolkitError(
            f"device={name}: this machine has no {WHAT[kind]} that torch can use: choose device=cpu or device=auto"
        )
    if number:
        module, count = torch.get_device_module(kind), int(torch.get_device_module(kind).device_count())
        if int(number) >= count:
            there = f"is only {kind}:0" if count == 1 else f"are {kind}:0 to {kind}:{count - 1}"
            raise ToolkitError(f"device={name}: there {there} on this machine, as torch counts: choose device={kind}")
        module.set_device(int(number))
    return torch.device(name)


def is_available(kind: str) -> bool:
    return bool((torch.backends.mps if kind == "mps" else torch.get_device_module(kind)).is_available())


def has_accelerator() -> bool:
    """Whether there is any device but the CPU."""
    return accelerator() is not None


def accelerator() -> tuple[str, ModuleType] | None:
    """Kind and module of torch's of the accelerator that this machine has."""
    kind = next((kind for kind in WHAT if is_available(kind)), None)
    return None if kind is None else (kind, torch.get_device_module(kind))


def device_name(device: torch.device) -> str | None:
    """An accelerator's own name, such as that of a graphics card; None where it has none."""
    if device.type in ("cpu", "mps"):
        return None
    return str(torch.get_device_module(device).get_device_name(device))
