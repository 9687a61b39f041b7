"""Positions of a grid as rotations of queries and keys."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import torch
from torch import Tensor, nn
from typing_extensions import Doc

LONGEST = 10_000.0
"""Positions that the slowest pair takes for a radian."""

_Positions = Literal["learned", "rotary"]

Positions = Annotated[
    _Positions,
    Doc(
        "how positions are known: by a learned embedding along each axis, or by rotating queries and keys by angles"
        " that grow with each axis' coordinate, so that attention sees how far apart two positions are (RoPE, Su et al."
        " 2021, arXiv:2104.09864). rotary has no weights of the grid: they work on grids larger than those of training."
    ),
]


def check_positions(positions: str) -> None:
    """ValueError where it is none of them."""
    if positions not in get_args(_Positions):
        raise ValueError(f"positions={positions}: one of {', '.join(get_args(_Positions))}")


class RotaryPositions(nn.Module):
    """Angles at every position of a grid of ``rank`` axes, each of which turns as many of a head's channel pairs.

    It has no state. A pair i of n turns by ``coordinate / LONGEST^(i / n)``; those that no axis gets are not turned.
    ValueError where an axis would get none.
    """

    def __init__(self, rank: int, channels: int) -> None:
        super().__init__()
        self.pairs, own = channels // 2, channels // 2 // rank
        if not own or channels % 2:
            raise ValueError(
                f"positions=rotary: a head has {channels} channels, and {rank} axes need an even number, at least"
                f" {2 * rank}; choose fewer heads or more hidden channels"
            )
        self.frequencies: Tensor
        self.register_buffer("frequencies", LONGEST ** (-torch.arange(own) / own), persistent=False)

    def forward(self, grid: tuple[int, ...]) -> Tensor:
        """Cosines and sines ``(2, positions, channels / 2)`` in raster order."""
        axes = [torch.arange(size, device=self.frequencies.device) for size in grid]
        coordinates = torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")], 1)
        angles = (coordinates.unsqueeze(2) * self.frequencies).flatten(1)
        angles = nn.functional.pad(angles, (0, self.pairs - angles.shape[1]))
        return torch.stack((angles.cos(), angles.sin()))


def rotate(x: Tensor, rotation: Tensor | None) -> Tensor:
    """x ``(…, positions, channels)``, whose channel i of the first half is a pair with that of the second; unchanged
    where there is no rotation ``(2, positions, channels / 2)``."""
    if rotation is None:
        return x
    (first, second), (cos, sin) = x.chunk(2, -1), rotation.unbind()
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1).to(x.dtype)
