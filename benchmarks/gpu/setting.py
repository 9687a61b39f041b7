"""Where a part runs, how large, and the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Setting:
    """``dry``: tiny, to prove that a part runs. ``data``: CIFAR-10's folder or archive, if there is one."""

    device: torch.device
    dry: bool
    scratch: Path
    seconds: float
    """That the part may take."""
    data: str | None = None

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def synchronize(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def per_call(self, act: Callable[[], object], seconds: float) -> float:
        """Seconds that a call takes, over as many as fit into ``seconds``; the first ones, which prepare, apart."""
        warm, some = (1, 1) if self.dry else (3, 10)
        for _ in range(warm):
            act()
        self.synchronize()
        began, calls = time.perf_counter(), 0
        while calls == 0 or (not self.dry and time.perf_counter() - began < seconds):
            for _ in range(some):
                act()
            calls += some
            self.synchronize()
        return (time.perf_counter() - began) / calls
