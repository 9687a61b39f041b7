"""What probabilities depend on besides weights: other libraries and processors round them differently."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version

import torch

from toolkit.device import device_name

THREADS = "threads"


def environment(device: torch.device) -> dict[str, str]:
    """Versions, processor and threads, as text."""
    where = device_name(device) or _processor()
    versions = {name: version(package) for name, package in (("toolkit", "discrete-toolkit"), ("torch", "torch"))}
    threads = {THREADS: str(torch.get_num_threads())} if device.type == "cpu" else {}
    return {**versions, "constriction": version("constriction"), "device": f"{device.type}, {where}", **threads}


def difference(written: Mapping[str, str], device: torch.device) -> str | None:
    """What differs here, but for the threads, which ``threads`` sets; None where nothing does."""
    here = environment(device)
    for name in sorted({*written, *here} - {THREADS}):
        if written.get(name) != here.get(name):
            return (
                f"its probabilities are those of {name} {written.get(name, 'unknown')}, and here they would be rounded"
                f" as by {name} {here.get(name, 'unknown')}; what prior=uniform or prior=categorical wrote is read"
                " everywhere"
            )
    return None


@contextmanager
def threads(written: Mapping[str, str] | None) -> Iterator[None]:
    """As many threads in the block as who wrote had, as sums are split among them."""
    before, count = torch.get_num_threads(), (written or {}).get(THREADS, "")
    try:
        if count.isdecimal() and 0 < int(count) <= 1024:
            torch.set_num_threads(int(count))
        yield
    finally:
        torch.set_num_threads(before)


def _processor() -> str:
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {_model()}".strip()


def _model() -> str:
    """The processor's name where Linux says it."""
    path = "/proc/cpuinfo"
    if not os.path.exists(path):
        return platform.processor()
    with open(path, encoding="utf-8", errors="replace") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.processor()
