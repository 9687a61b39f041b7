"""How the same values lie in two files: there and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

Change: TypeAlias = Callable[[Sequence[Tensor]], Sequence[Tensor]]


@dataclass(frozen=True)
class Form:
    """``here``: their tensors to ours; ``there``: ours to theirs. Each undoes the other."""

    here: Change
    there: Change


def _as_they_are(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return tensors


SAME = Form(_as_they_are, _as_they_are)
"""The same tensors under other names."""


def pointwise(axes: int) -> Form:
    """A convolution of kernel 1 over some axes there, ``(out, in, 1, …)``, a linear layer here, ``(out, in)``."""
    return Form(
        lambda tensors: [t.flatten(1) if t.dim() > 1 else t for t in tensors],
        lambda tensors: [t.view(*t.shape, *[1] * axes) if t.dim() > 1 else t for t in tensors],
    )


def stacked(count: int) -> Form:
    """So many tensors there, one after the other along the first axis here, such as query, key and value."""

    def there(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        return tensors[0].chunk(count)

    return Form(lambda tensors: [torch.cat(list(tensors))], there)
