"""Two processes that train together, each of a test's own file, and what they train on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from toys import TOY

from toolkit import distributed

PATIENCE = 600.0
"""Seconds after which a process is taken to hang: other tests may keep the cores busy."""


def run_two(file: str, folder: Path, *words: str, ranks: int = 2) -> None:
    """Runs a file as two ranks, which get their number, the folder and the words, and waits for both; or as more."""
    env = {**os.environ, "TOOLKIT_PLUGIN_PATH": str(TOY)}
    started = [
        subprocess.Popen([sys.executable, file, str(rank), str(folder), *words], env=env) for rank in range(ranks)
    ]
    try:
        assert [process.wait(timeout=PATIENCE) for process in started] == [0] * ranks
    finally:
        for process in started:
            process.kill()
            process.wait()


@contextmanager
def one_of_two(rank: int, folder: str, ranks: int = 2) -> Iterator[None]:
    """In such a process: the others are there while the block lasts, and each computes on one core."""
    torch.set_num_threads(1)
    with distributed.process_group(f"file://{folder}/meeting", rank, ranks, rank):
        yield


class Codes:
    """Codes to train a prior on."""

    def size(self, split: str) -> int:
        return 37

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        drawn = torch.Generator().manual_seed(index)
        return {"x": torch.randint(16, (1, 4, 4), generator=drawn), "kind": torch.tensor(index % 3)}
