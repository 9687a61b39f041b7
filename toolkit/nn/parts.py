"""Codes of several grids, one after the other in a flat one."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor


def split_parts(codes: Tensor, parts: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Codes ``(batch, d, positions)`` of all parts, or of the first ones: each part's ``(batch, d, *grid)``.

    ValueError where a part is not whole.
    """
    sizes = [prod(part) for part in parts]
    for count in range(1, len(sizes) + 1):
        if sum(sizes[:count]) == codes.shape[2]:
            given = zip(codes.split(sizes[:count], 2), parts, strict=False)
            return [of_part.unflatten(2, part) for of_part, part in given]
    raise ValueError(f"codes of {codes.shape[2]} positions: the parts have {sizes}, and each must be whole")
