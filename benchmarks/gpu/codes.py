"""Codes define what is stored: those of a GPU against those of the CPU, from the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.cases import Images, stage_of
from benchmarks.gpu.rows import Judged, Rows
from benchmarks.gpu.samples import differing
from benchmarks.gpu.setting import Setting
from toolkit.autoencoder import Autoencoder
from toolkit.nn.lookup import nearest

TIES = 1e-3
"""Share of codes that may differ: of latents between two entries, which rounding decides."""


def run(rows: Rows, setting: Setting) -> None:
    rows.check("codes that differ from the CPU's, by precision", lambda: by_precision(setting))
    rows.check("look-up: entries that are not the nearest in float64", lambda: lookup(setting))


def by_precision(setting: Setting) -> Judged:
    stage, _ = stage_of(["quantizer=vq", "quantizer.init=random"], setting)
    model, x = stage.model.eval(), Images(16 if setting.dry else 512).x
    with torch.no_grad():
        z = model.encode(x).movedim(1, -1).flatten(0, -2)
        table = model.quantizer.codebook
        table.data.copy_(z[torch.linspace(0, len(z) - 1, len(table)).long()])
    cpu, there = codes(model, x), deepcopy(model).to(setting.device)
    found: dict[str, Any] = {"as it comes": differing(codes(there, x.to(setting.device)), cpu)}
    for name, tf32 in (("TF32 convolutions", True), ("fp32 convolutions", False)):
        with _tf32(tf32):
            found[name] = differing(codes(there, x.to(setting.device)), cpu)
    found["bf16"] = differing(codes(there, x.to(setting.device), bf16=True), cpu)
    return Judged(found["fp32 convolutions"] <= TIES, found)


def codes(model: Autoencoder, x: Tensor, bf16: bool = False) -> Tensor:
    with torch.no_grad(), torch.autocast(x.device.type, torch.bfloat16) if bf16 else nullcontext():
        return model.quantize(x).codes.cpu()


def lookup(setting: Setting) -> Judged:
    generator = torch.Generator().manual_seed(0)
    rows, entries = (512, 256) if setting.dry else (20_000, 8192)
    z, table = torch.randn(rows, 64, generator=generator), torch.randn(entries, 64, generator=generator)
    best = torch.cdist(z.double(), table.double()).argmin(1)
    share = differing(nearest(z.to(setting.device), table.to(setting.device)).cpu(), best)
    return Judged(share <= 1e-4, share)


@contextmanager
def _tf32(on: bool) -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = on
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
