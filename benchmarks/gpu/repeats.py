"""Two runs of one seed: how far apart their weights are, plainly and with ``deterministic=true``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor

from benchmarks.gpu.cases import QUANTIZERS, Images, stage_of, updates
from benchmarks.gpu.rows import Judged, Rows
from benchmarks.gpu.setting import Setting

CASES = ("ema", "vq kmeans", "product", "residual")


def run(rows: Rows, setting: Setting) -> None:
    for name in CASES[:1] if setting.dry else CASES:
        rows.check(f"{name}: as it comes", lambda name=name: apart(QUANTIZERS[name], setting))
        exact = [*QUANTIZERS[name], "trainer.deterministic=true"]
        rows.check(f"{name}: deterministic=true", lambda w=exact: equal(w, setting))


def apart(words: Sequence[str], setting: Setting) -> float:
    """The largest difference of any weight after some steps."""
    first, second = (trained(words, setting) for _ in range(2))
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)


def equal(words: Sequence[str], setting: Setting) -> Judged:
    try:
        most = apart(words, setting)
    finally:
        torch.use_deterministic_algorithms(False)
    return Judged(most == 0, most)


def trained(words: Sequence[str], setting: Setting) -> dict[str, Tensor]:
    stage, options = stage_of(words, setting)
    for _ in islice(updates(stage, options, Images(64), setting), 2 if setting.dry else 30):
        pass
    return {name: value.cpu() for name, value in stage.state_dict().items()}
