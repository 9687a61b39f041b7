"""The card's own rates, which all else is measured against."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from benchmarks.gpu.rows import Rows
from benchmarks.gpu.setting import Setting

SIZE = 8192
PRODUCTS = {"bf16": (torch.bfloat16, False), "tf32": (torch.float32, True), "fp32": (torch.float32, False)}
"""Type, and whether TF32 is allowed."""


def run(rows: Rows, setting: Setting) -> None:
    for name in PRODUCTS:
        rows.check(f"matrix product {name}, TFLOP/s", lambda name=name: round(product(name, setting) / 1e12, 2))
    rows.check("copy, TB/s read and written", lambda: round(copy(setting) / 1e12, 3))
    rows.check("launch of a small kernel, us", lambda: round(launch(setting) * 1e6, 2))


def product(name: str, setting: Setting) -> float:
    """Operations per second of a large matrix product."""
    size = 128 if setting.dry else SIZE
    dtype, tf32 = PRODUCTS[name]
    a = torch.randn(size, size, device=setting.device).to(dtype)
    with _tf32(tf32):
        return 2 * size**3 / setting.per_call(lambda: a @ a, 1.0)


def copy(setting: Setting) -> float:
    """Bytes per second that are read or written."""
    a = torch.empty(1 << (16 if setting.dry else 30), dtype=torch.uint8, device=setting.device)
    b = torch.empty_like(a)
    return 2 * a.numel() / setting.per_call(lambda: b.copy_(a), 0.5)


def launch(setting: Setting) -> float:
    """Seconds from one small kernel to the next, launched by Python one after the other."""
    a = torch.zeros(1, device=setting.device)

    def many() -> None:
        for _ in range(100):
            a.add_(1)

    return setting.per_call(many, 0.5) / 100


@contextmanager
def _tf32(on: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = on
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
