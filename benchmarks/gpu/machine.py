"""What was measured on: the card and its driver, the processor's cores, and the versions."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

import toolkit
from toolkit.workers import cores

PEERS = ("vector-quantize-pytorch", "triton")


def machine(device: torch.device) -> dict[str, Any]:
    """Facts of this machine."""
    facts: dict[str, Any] = {"cores": cores(), "system": platform.system(), "python": platform.python_version()}
    facts |= {"torch": torch.__version__, "cuda": torch.version.cuda, "toolkit": toolkit.__version__}
    for name in PEERS:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = None
    if hasattr(os, "sysconf"):
        facts["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30), 1)
    return facts | (_card(device) if device.type == "cuda" else {"device": "CPU", "threads": torch.get_num_threads()})


def name_of(device: torch.device) -> str:
    """Of the card, as a file's name may have it."""
    if device.type != "cuda":
        return device.type
    return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(device).lower()).strip("-")


def _card(device: torch.device) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(device)
    return {
        "device": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "device_memory_gib": round(properties.total_memory / (1 << 30), 1),
        "multiprocessors": properties.multi_processor_count,
        "cudnn": torch.backends.cudnn.version(),
        "driver": _driver(),
    }


def _driver() -> str | None:
    asked = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv,noheader"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
