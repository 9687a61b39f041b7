"""Images per second of the paper's CIFAR-10 model, switch by switch, and the share of the matrix limit that this is.

Ten VectorQuantize of vector-quantize-pytorch in a bare loop are the peer. The limit is that of the card's large matrix
products in bfloat16, measured here; the operations are those of the model's convolutions and products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.card import product
from benchmarks.gpu.paper import BATCH, Bare, Step, loop, operations, peer
from benchmarks.gpu.rows import Rows
from benchmarks.gpu.setting import Setting

BARE = {
    "fp32": Bare(bf16=False),
    "bf16": Bare(),
    "bf16, channels last": Bare(channels_last=True),
    "bf16, graph": Bare(graph=True),
    "bf16, channels last, batch 512": Bare(channels_last=True, batch=512),
}
BF16 = "precision=bf16"
LOOPS: dict[str, tuple[list[str], int]] = {
    "as it comes": ([], BATCH),
    "fp32": (["precision=fp32"], BATCH),
    "bf16": ([BF16, "graph=false"], BATCH),
    "bf16, data on device": ([BF16, "data_on_device=true"], BATCH),
    "bf16, graph": ([BF16, "graph=true"], BATCH),
    "bf16, graph, data on device": ([BF16, "graph=true", "data_on_device=true"], BATCH),
    "bf16, graph, data on device, batch 512": ([BF16, "graph=true", "data_on_device=true"], 512),
}
COMPILED: dict[str, tuple[list[str], int]] = {
    "bf16, compiled": ([BF16, "compile=true"], BATCH),
    "bf16, compile=max, data on device": ([BF16, "compile=max", "data_on_device=true"], BATCH),
}


def run(rows: Rows, setting: Setting) -> None:
    limit, each = product("bf16", setting), operations(setting)
    rows.check("operations of an image", lambda: each)

    def timed(make: Callable[[], Step], batch: int) -> dict[str, Any]:
        size = 2 if setting.dry else batch
        per_second = size / setting.per_call(make(), 3.0)
        if setting.is_cuda:
            torch.cuda.empty_cache()
        return {"images_per_second": round(per_second, 1), "share_of_limit": round(per_second * each / limit, 4)}

    for name, bare in BARE.items():
        rows.check(f"bare loop: {name}", lambda b=bare: timed(lambda: b.step(setting), b.batch))
    rows.check("vector-quantize-pytorch, bare loop: bf16", lambda: timed(lambda: peer(setting), BATCH))
    for name, (words, batch) in LOOPS.items():
        rows.check(f"toolkit: {name}", lambda w=words, b=batch: timed(lambda: loop(w, b, setting), b))
    if setting.dry:
        return
    for name, (words, batch) in COMPILED.items():  # last, as it may take the rest of the time to compile them
        rows.check(f"toolkit: {name}", lambda w=words, b=batch: timed(lambda: loop(w, b, setting), b))
    rows.check("bare loop: bf16, compiled", lambda: timed(lambda: Bare(compile=True).step(setting), BATCH))
