"""Where a step's time goes: kernels, and the share of the time in which the GPU works, in toolkit's loop."""

from __future__ import annotations

import time
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.paper import BATCH, loop
from benchmarks.gpu.rows import Rows
from benchmarks.gpu.setting import Setting

STEPS = 10
CASES = {
    "as it comes": [],
    "bf16, eager": ["precision=bf16", "graph=false"],
    "bf16, graph, data on device": ["precision=bf16", "graph=true", "data_on_device=true"],
}


def run(rows: Rows, setting: Setting) -> None:
    for name, words in CASES.items():
        rows.check(f"profile: {name}", lambda words=words: profiled(words, setting))


def profiled(words: list[str], setting: Setting) -> dict[str, Any]:
    """Of some steps; times in milliseconds a step."""
    step, steps = loop(words, BATCH, setting), 1 if setting.dry else STEPS
    for _ in range(1 if setting.dry else 8):
        step()
    setting.synchronize()
    began = time.perf_counter()
    with profile(activities=[ProfilerActivity.CUDA if setting.is_cuda else ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            step()
        setting.synchronize()
    seconds = time.perf_counter() - began
    found: dict[str, Any] = {"step": round(seconds / steps * 1e3, 3)}
    if setting.is_cuda:
        kernels = [event for event in profiler.events() if event.device_type == DeviceType.CUDA]
        busy = sum(event.time_range.elapsed_us() for event in kernels) / 1e6
        found |= {"kernels": len(kernels) / steps, "share in which the GPU works": round(busy / seconds, 3)}
    time_of = "self_device_time_total" if setting.is_cuda else "self_cpu_time_total"
    rows = sorted(profiler.key_averages(), key=lambda row: -getattr(row, time_of))[:12]
    return found | {"longest": {row.key[:80]: round(getattr(row, time_of) / steps / 1e3, 4) for row in rows}}
