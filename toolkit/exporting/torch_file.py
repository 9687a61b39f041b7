"""Files of ``torch.export``, which PyTorch runs without this package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import final

import torch
from torch import Tensor
from torch.export import ExportedProgram

from toolkit.exporting.graphs import Graph
from toolkit.exporting.tracing import quietly


def write(graph: Graph, program: ExportedProgram, path: Path) -> None:
    """A program as a file."""
    with quietly():
        torch.export.save(program, path)


@final
class Program:
    """A file, run by PyTorch."""

    def __init__(self, path: Path) -> None:
        with quietly():
            self.module = torch.export.load(path).module()

    def __call__(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        with torch.no_grad():
            result = self.module(*inputs.values())
        return tuple(result) if isinstance(result, tuple | list) else (result,)
