"""Samples by captured steps, by eager ones and on the CPU: the same codes; and what captures leave in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import product
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.cases import PRIORS, prior_of
from benchmarks.gpu.rows import Judged, NotThereError, Rows
from benchmarks.gpu.setting import Setting
from toolkit.causal import sampling
from toolkit.prior import Prior, SamplingOptions

CPU = torch.device("cpu")
OPTIONS: tuple[tuple[int, dict[str, Any]], ...] = (
    (1, {}),
    (5, {"top_k": 20, "temperature": 0.8}),
    (5, {"top_p": 0.9}),
)
ROUNDING = 0.02
"""Share of codes that may differ from the CPU's: where two are almost equally likely, rounding decides."""


def run(rows: Rows, setting: Setting) -> None:
    for (name, words), (n, options) in product(PRIORS.items(), OPTIONS[:1] if setting.dry else OPTIONS):
        what = " ".join(f"{key} {value}" for key, value in options.items())
        name = f"{name}, {n} {what}".rstrip()
        rows.check(f"{name}: captured = eager = the CPU's", lambda w=words, n=n, o=options: alike(w, n, o, setting))
    rows.check("pixelcnn: compiled = captured", lambda: compiled(PRIORS["pixelcnn"], setting))
    rows.check("memory after 5 and after 25 draws, MiB", lambda: left_over(PRIORS["transformer"], setting))


def alike(words: Sequence[str], n: int, options: dict[str, Any], setting: Setting) -> Judged:
    """Shares of codes that differ."""
    stage, *_ = prior_of(words, setting)
    cpu, own = draw(stage.model, CPU, n, **options), draw(stage.model, setting.device, n, **options)
    found: dict[str, Any] = {"from the CPU's": differing(own, cpu)}
    well = found["from the CPU's"] <= ROUNDING
    if setting.is_cuda:
        with uncaptured():
            found["from eager"] = differing(own, draw(stage.model, setting.device, n, **options))
        well = well and found["from eager"] == 0
    return Judged(well, found)


def compiled(words: Sequence[str], setting: Setting) -> Judged:
    if not setting.is_cuda:
        raise NotThereError("a CUDA device")
    stage, *_ = prior_of(words, setting)
    share = differing(draw(stage.model, setting.device, 4, compile=True), draw(stage.model, setting.device, 4))
    return Judged(share <= ROUNDING, share)


def left_over(words: Sequence[str], setting: Setting) -> Judged:
    stage, *_ = prior_of(words, setting)
    kept = []
    for i in range(2 if setting.dry else 25):
        draw(stage.model, setting.device, 4)
        if setting.is_cuda and i in (4, 24):
            kept.append(torch.cuda.memory_reserved(setting.device) >> 20)
    return Judged(not kept or kept[-1] <= kept[0] + 64, kept)


def draw(prior: Prior, device: torch.device, n: int, *, compile: bool = False, **options: Any) -> Tensor:
    """Codes on the CPU, of the same seed on every device."""
    prior = prior.to(device).eval()
    with sampling.compiled() if compile else nullcontext():
        codes = prior.sample(n, {}, SamplingOptions(**options), generator=torch.Generator().manual_seed(3))
    return codes.cpu()


def differing(a: Tensor, b: Tensor) -> float:
    return float((a != b).float().mean())


@contextmanager
def uncaptured() -> Iterator[None]:
    """Steps are run one by one, none is captured."""
    if not hasattr(sampling, "_sample_recorded"):
        raise NotThereError("a way to sample without capture")
    recorded = sampling._sample_recorded
    sampling._sample_recorded = sampling._sample_batch
    try:
        yield
    finally:
        sampling._sample_recorded = recorded
