"""Non-overlapping patches over any number of axes."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor


def to_patches(x: Tensor, patch: int) -> Tensor:
    """x ``(batch, channels, *axes)`` to ``(batch, *grid, channels * patch ** rank)``, where axes are grid * patch."""
    grid, inside = _axes(x.dim() - 2)
    spread = " ".join(f"({g} {p})" for g, p in zip(grid, inside, strict=True))
    return rearrange(x, f"b c {spread} -> b {' '.join(grid)} (c {' '.join(inside)})", **dict.fromkeys(inside, patch))


def from_patches(patches: Tensor, patch: int) -> Tensor:
    """The inverse of ``to_patches``."""
    grid, inside = _axes(patches.dim() - 2)
    spread = " ".join(f"({g} {p})" for g, p in zip(grid, inside, strict=True))
    pattern = f"b {' '.join(grid)} (c {' '.join(inside)}) -> b c {spread}"
    return rearrange(patches, pattern, **dict.fromkeys(inside, patch))


def _axes(rank: int) -> tuple[list[str], list[str]]:
    """einops' names for the positions of patches and the positions in a patch."""
    return [f"g{i}" for i in range(rank)], [f"p{i}" for i in range(rank)]
