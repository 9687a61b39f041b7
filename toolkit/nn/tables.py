"""Quantizers of one table each, written for several tables at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from toolkit.quantizer import Quantized, Quantizer


class Assigned(NamedTuple):
    """A batch's latents and what they were assigned to."""

    rows: Tensor
    """``(tables, n, dim)``, detached."""
    entries: Tensor
    """``(tables, n)``: of each row its entry's index in its own table."""


class TableQuantizer(Quantizer):
    """Quantizes by a table of its own, and together with others of its kind in as many operations as alone.

    Small tables cost a device more in launches than in arithmetic, so what is computed has a leading dimension of
    tables, of which a quantizer by itself has one. Parameters and buffers stay each quantizer's own.
    """

    def forward(self, z: Tensor) -> Quantized:
        return self.together([self], z)

    def together(self, parts: Sequence[Self], z: Tensor) -> Quantized:
        """``forward`` of alike quantizers, this one among them.

        z ``(tables * batch, dim, *grid)`` has the examples of the first, then those of the second, and so on, and so
        has the result. Its metrics are means over all of them.
        """
        if self.training:
            self.refresh(parts, z)
        quantized, assigned = self.assign(parts, z)
        if self.training:
            self.learn(parts, assigned)
        return quantized

    def refresh(self, parts: Sequence[Self], z: Tensor) -> None:
        """Initializes and revives entries at a batch's latents, in training, before they are assigned: after that, they
        must not change until their gradient. z as in ``together``."""

    @abstractmethod
    def assign(self, parts: Sequence[Self], z: Tensor) -> tuple[Quantized, Assigned]:
        """The same, but for what the tables learn of it; ``refresh`` comes before."""

    @abstractmethod
    def learn(self, parts: Sequence[Self], assigned: Assigned) -> None:
        """Updates tables and statistics by a batch, over all ranks. It may come after other quantizers' ``assign``."""

    @abstractmethod
    def likeness(self) -> tuple[object, ...] | None:
        """What is equal for quantizers that can be computed together; None for one that must be computed alone, such
        as where it draws more than once, and together the draws would come in another order."""


def alike(parts: Sequence[Quantizer]) -> bool:
    """Whether these can be computed together."""
    first = parts[0]
    if not isinstance(first, TableQuantizer) or any(type(part) is not type(first) for part in parts):
        return False
    likeness = first.likeness()
    others = (part.likeness() for part in parts[1:] if isinstance(part, TableQuantizer))
    return likeness is not None and all(other == likeness for other in others)


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """The tables' tensors, of one shape, along a new first dimension; a single one is not copied."""
    return tensors[0].unsqueeze(0) if len(tensors) == 1 else torch.stack(list(tensors))


@torch.no_grad()
def write(tensors: Sequence[Tensor], values: Tensor) -> None:
    """The inverse of ``stacked``: sets the tables' tensors, in place, in one operation."""
    torch._foreach_copy_(list(tensors), list(values.unbind()))
