"""Steps that never wait for the GPU: behind the first two, which prepare, torch refuses every synchronization."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import torch

from benchmarks.gpu.cases import PRIORS, QUANTIZERS, Codes, Images, prior_of, stage_of, updates
from benchmarks.gpu.rows import Judged, Rows
from benchmarks.gpu.setting import Setting
from toolkit.training import Metrics

PREPARING = 2
SWITCHES = ("trainer.graph=true", "trainer.data_on_device=true", "trainer.precision=fp16")


def run(rows: Rows, setting: Setting) -> None:
    for precision in ("bf16",) if setting.dry else ("fp32", "bf16"):
        for name, words in QUANTIZERS.items():
            case = [*words, f"trainer.precision={precision}"]
            rows.check(f"{name}, {precision}: no wait, finite", lambda case=case: autoencoder(case, setting))
    for switch in SWITCHES:
        case = [*QUANTIZERS["ema"], switch]
        rows.check(f"ema, {switch}: no wait, finite", lambda case=case: autoencoder(case, setting))
    for name, words in PRIORS.items():
        case = [*words, "prior_trainer.precision=bf16"]
        rows.check(f"prior {name}, bf16: no wait, finite", lambda case=case: prior(case, setting))


def autoencoder(words: Sequence[str], setting: Setting) -> Judged:
    stage, options = stage_of(words, setting)
    return _steps(updates(stage, options, Images(64), setting), setting)


def prior(words: Sequence[str], setting: Setting) -> Judged:
    stage, options, code_spec = prior_of(words, setting)
    return _steps(updates(stage, options, Codes(64, code_spec), setting), setting)


def _steps(metrics: Iterator[Metrics], setting: Setting) -> Judged:
    """The loss of the last step."""
    for _ in islice(metrics, PREPARING):
        pass
    with _refused(setting):
        for last in islice(metrics, 1 if setting.dry else 6):
            loss = last["loss"]
    value = float(loss)
    return Judged(torch.isfinite(torch.tensor(value)).item(), value)


@contextmanager
def _refused(setting: Setting) -> Iterator[None]:
    if not setting.is_cuda:
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
