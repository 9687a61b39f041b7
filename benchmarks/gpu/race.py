"""Captures while a loader's thread pins memory, which a capture in the mode "global" does not survive.

As the toolkit captures, and, to know whether this machine shows it, in the mode "global". That comes last: it may break
the process's CUDA context.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.gpu.cases import PRIORS, Images, prior_of
from benchmarks.gpu.rows import Judged, NotThereError, Rows
from benchmarks.gpu.samples import draw
from benchmarks.gpu.setting import Setting
from toolkit.batches import TrainBatches
from toolkit.workers import cores


def run(rows: Rows, setting: Setting) -> None:
    rows.check("captures beside a pinning loader, as they come", lambda: race(setting))
    rows.check("the same in the mode global, for the record", lambda: forced(setting))


def race(setting: Setting) -> Judged:
    """How many of some captures failed, and with which words."""
    texts: list[str] = []
    times = 1 if setting.dry else 20
    for _ in range(times):
        stage, *_ = prior_of(PRIORS["pixelcnn"], setting)
        workers = 0 if setting.dry else min(4, cores())
        batches = TrainBatches(Images(256), setting.device, batch_size=64, seed=0, workers=workers)
        try:
            for _ in range(3):
                next(batches)
            draw(stage.model, setting.device, 2)
            for _ in range(1 if setting.dry else 20):
                next(batches)
        except RuntimeError as error:
            texts.append(str(error).splitlines()[0][:160])
        del batches
    return Judged(not texts, {"captures": times, "failed": len(texts), "texts": sorted(set(texts))})


def forced(setting: Setting) -> dict[str, Any]:
    if not setting.is_cuda:
        raise NotThereError("a CUDA device")
    with _global():
        return {"as it should": "some may fail", **race(setting).found}


@contextmanager
def _global() -> Iterator[None]:
    graph = torch.cuda.graph

    def capture(*args: Any, **words: Any) -> Any:
        return graph(*args, **{**words, "capture_error_mode": "global"})

    torch.cuda.graph = capture  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        torch.cuda.graph = graph  # type: ignore[misc]
