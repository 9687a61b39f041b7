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


def only_here(*tensors: Tensor) -> Form:
    """What ours have and no published file does, such as a codebook's counts: an entry without ``theirs``."""
    return Form(lambda _: tensors, lambda _: ())


def only_there(*tensors: Tensor) -> Form:
    """What a published file has and ours do without, always the same: an entry without ``ours``."""
    return Form(lambda _: (), lambda _: tensors)


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


def weight_norm() -> Form:
    """Norm and direction there, a weight and its norm along all axes but the first; the weight itself here.

    Of many directions that give the same weight, the way back takes the weight itself.
    """

    def here(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        norm, direction = tensors
        return [torch._weight_norm(direction, norm, 0)]

    def there(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        (weight,) = tensors
        return [torch.norm_except_dim(weight, 2, 0), weight]

    return Form(here, there)
