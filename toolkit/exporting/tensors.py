"""The types of a graph's inputs and outputs, and examples of what goes in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from toolkit.spec import CodeSpec, Condition, DataSpec


def stored(x: Tensor, data: DataSpec) -> Tensor:
    """Data in its own form, in the smallest type that holds it: uint8, else int32, of levels; floats as they are."""
    if data.levels is None:
        return x
    return x.to(torch.uint8 if data.levels <= 1 << 8 else torch.int32)


def random_data(data: DataSpec, n: int, lengths: Sequence[int], generator: torch.Generator) -> Tensor:
    """Noise ``(n, channels, *lengths)`` in the data's own form."""
    shape = (n, data.channels, *lengths)
    if data.levels is None:
        return torch.rand(shape, generator=generator) * 2 - 1
    return stored(torch.randint(data.levels, shape, generator=generator), data)


def random_codes(codes: CodeSpec, n: int, grid: Sequence[int], generator: torch.Generator) -> Tensor:
    """``(n, depth, *grid)``, each below its depth's codebook size."""
    return torch.stack([torch.randint(size, (n, *grid), generator=generator) for size in codes.codebook_sizes], 1)


def random_condition(condition: Condition, n: int, length: int, generator: torch.Generator) -> Tensor:
    """Values for n examples of a length, "none" among the labels."""
    steps = (condition.steps(length),) if condition.per_step else ()
    if condition.text:
        return torch.zeros(n, condition.size, dtype=torch.uint8)
    if condition.real:
        return torch.randn(n, *steps, condition.size, generator=generator)
    return torch.randint(condition.size + 1, (n, *steps), generator=generator)


def type_name(t: Tensor) -> str:
    """A tensor's type as NumPy calls it."""
    return str(t.dtype).removeprefix("torch.")
