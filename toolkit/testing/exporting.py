"""A module as the graph that ``torch.export`` makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

EXPORTED_AT = 5
"""Examples in the batch that the laws export with."""
RUN_AT = (1, 3)
"""And in those that they then run."""


def exports(test: Any) -> Any:
    """Marks a law as one that exports, ``strict`` and not; what torch says to itself meanwhile is no fault."""
    for warning in ("ignore::DeprecationWarning", "ignore::FutureWarning"):
        test = pytest.mark.filterwarnings(warning)(test)
    return pytest.mark.parametrize("strict", [True, False], ids=["strict", "not strict"])(test)


def exported(
    module: nn.Module, inputs: tuple[Tensor, ...], strict: bool, lengths: Mapping[int, int] | None = None
) -> nn.Module:
    """The graph of a module of tensors ``(batch, …)``, its batch left free; torch's UserError where its code fixes it.

    ``lengths``: axes of the first input that are free, too, in multiples of these numbers. ``len(x)`` does where it is
    not strict: it is a plain number, and so a constant of the graph. ``x.shape[0]`` stays free in both.
    """
    batch = torch.export.Dim("batch")
    free = {axis: _multiple(unit, f"n{axis}") for axis, unit in (lengths or {}).items()}
    shapes = ({0: batch, **free}, *({0: batch} for _ in inputs[1:]))
    graph: nn.Module = torch.export.export(module, inputs, dynamic_shapes=shapes, strict=strict).module()
    return graph


def _multiple(unit: int, name: str) -> Any:
    n = torch.export.Dim(name, min=2)  # one of anything is taken for a constant
    return n if unit == 1 else unit * n
