"""A batch of examples of unequal lengths: padded behind their ends, with a mask of what is theirs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import default_collate

MASK = "mask"
"""Under which a batch has which positions of x are its examples' own, ``(batch, positions)`` bool."""


def together(rows: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Examples as a batch, by name: stacked or, where they differ in length, padded with zeros to the longest.

    Then there is a ``mask``, too. x differs along its first axis, ``(channels, positions, …)``, and conditions per step
    along theirs, ``(steps, …)``.
    """
    lengths = [row["x"].shape[1:2] for row in rows if "x" in row]
    if all(length == lengths[0] for length in lengths):
        batch: dict[str, Tensor] = default_collate(list(rows))
        return batch
    padded = {name: _stacked([row[name] for row in rows], int(name == "x")) for name in rows[0]}
    return {**padded, MASK: mask_of(torch.tensor([length for (length,) in lengths]), padded["x"].shape[2])}


def mask_of(lengths: Tensor, positions: int) -> Tensor:
    """``(batch, positions)``: which of the positions are within each example's length."""
    return torch.arange(positions, device=lengths.device) < lengths.unsqueeze(1)


def shortest(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """A batch whose examples are cut to the shortest of them, so that nothing is padding."""
    mask = batch.get(MASK)
    if mask is None:
        return batch
    length, longest = int(mask.sum(1).min()), mask.shape[1]
    x = batch["x"][:, :, :length]
    return {**{name: cut(value, length, longest) for name, value in batch.items() if name != MASK}, "x": x}


def cut(condition: Tensor, length: int, longest: int) -> Tensor:
    """A condition ``(batch, …)`` of examples whose first ``length`` of ``longest`` positions are kept: as many of its
    steps, where it has some."""
    return condition[:, : condition.shape[1] * length // longest] if has_steps(condition) else condition


def has_steps(condition: Tensor) -> bool:
    """Whether a batch's condition is one per step: labels ``(batch, steps)``, or values ``(batch, steps, size)``.

    A text is bytes, ``(batch, size)`` uint8, and has none.
    """
    return condition.dtype != torch.uint8 and condition.dim() == (3 if condition.is_floating_point() else 2)


def own(values: Tensor, mask: Tensor) -> Tensor:
    """Of ``(batch, channels, positions, …)`` the examples' own positions, joined: ``(1, channels, all of them, …)``."""
    return values.movedim(1, -1)[mask].movedim(-1, 0).unsqueeze(0)


def without_padding(values: Tensor, mask: Tensor) -> Tensor:
    """``(batch, channels, positions, …)`` with zeros in place of what is no example's own."""
    return torch.where(mask.view(len(mask), 1, -1, *[1] * (values.dim() - 3)), values, 0)


def _stacked(values: Sequence[Tensor], axis: int) -> Tensor:
    shapes = {tuple(value.shape) for value in values}
    if len(shapes) == 1:
        stacked: Tensor = default_collate(list(values))
        return stacked
    shape = [max(sizes) for sizes in zip(*shapes, strict=True)]
    batch = values[0].new_zeros(len(values), *shape)
    for row, value in zip(batch, values, strict=True):
        row.narrow(axis, 0, value.shape[axis]).copy_(value)
    return batch
