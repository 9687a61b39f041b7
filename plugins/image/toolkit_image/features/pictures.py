"""Data as the pictures that feature networks take."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit import DataSpec


@final
class Pictures(nn.Module):
    """Data on the scale of [-1, 1], ``(batch, 1 or 3, height, width)``, to colors from 0 to 1 ``(batch, 3, …)``.

    Args:
        size: pixels of the shorter side, to which pictures are resized with antialiasing; null: as they are.
    """

    def __init__(self, data: DataSpec, size: int | None = None) -> None:
        super().__init__()
        if data.rank != 2 or data.channels not in (1, 3) or not data.ordered:
            raise ValueError(f"takes pictures, of 1 or 3 channels and two axes; this data has {data.shape}")
        sides = data.axes[0], data.axes[1]
        self.sides = sides if size is None else tuple(max(1, round(side * size / min(sides))) for side in sides)
        self.resizes = self.sides != sides
        for name, side, new in zip(("rows", "columns"), sides, self.sides, strict=True):
            self.register_buffer(name, _resizing(side, new) if self.resizes else None, persistent=False)

    def forward(self, scaled: Tensor) -> Tensor:
        pictures = (scaled + 1) / 2
        if self.resizes:
            rows, columns = (self.get_buffer(name).to(pictures.dtype) for name in ("rows", "columns"))
            pictures = rows @ pictures @ columns.mT
        return pictures.expand(-1, 3, -1, -1)


def _resizing(side: int, new: int) -> Tensor:
    """The matrix ``(new, side)`` of bilinear interpolation with antialiasing along one axis: a product with it is the
    same on every device, forward and backward."""
    eye = torch.eye(side).view(1, 1, side, side)
    resized: Tensor = F.interpolate(eye, (new, side), mode="bilinear", antialias=True, align_corners=False)
    return resized[0, 0]


def cropped(one: Tensor, other: Tensor, crop: int) -> tuple[Tensor, Tensor]:
    """A random square of each picture, the same of both."""
    n, channels, height, width = one.shape
    both = torch.cat([one, other], 1)
    for axis, side in ((2, height), (3, width)):
        starts = torch.randint(side - crop + 1, (n, 1), device=one.device)
        places = starts + torch.arange(crop, device=one.device)
        shape = (n, 1, crop, 1) if axis == 2 else (n, 1, 1, crop)
        sizes = [n, 2 * channels, *both.shape[2:]]
        sizes[axis] = crop
        both = both.gather(axis, places.view(shape).expand(sizes))
    return both[:, :channels], both[:, channels:]
