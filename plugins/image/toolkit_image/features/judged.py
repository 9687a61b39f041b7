"""What a metric judges: data, reconstructions and samples, as vectors of features."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn

from toolkit import DataSpec
from toolkit_image.features.pictures import Pictures


@final
class Judged:
    """Data to a network's vectors ``(batch, features)``, seen as the picture files that one would write of it: in 256
    levels.

    Args:
        embed: of pictures of 256 levels, ``(batch, 3, height, width)`` from 0 to 1.
        network: what that uses, which is moved to where the data lies.
        size: pixels of the shorter side that pictures are resized to.
        crop: pixels of the square in the middle that is judged, of a resized picture.
    """

    def __init__(
        self,
        data: DataSpec,
        embed: Callable[[Tensor], Tensor],
        network: nn.Module,
        size: int | None = None,
        crop: int | None = None,
    ) -> None:
        self.data, self.embed, self.network = data, embed, network
        self.pictures, self.crop = Pictures(data, size), crop
        height, width = self.pictures.sides
        if crop and crop > min(height, width):
            raise ValueError(f"crop={crop}: more than the {min(height, width)} pixels of a picture")
        self.size = f"{crop}crop" if crop else f"{width}x{height}"
        """As a part of a metric's name."""

    def of_data(self, x: Tensor) -> Tensor:
        """Of data as it is read, or as samples are."""
        return self.of_scaled(self.data.scale(x))

    @torch.no_grad()
    def of_scaled(self, scaled: Tensor) -> Tensor:
        """Of data on the scale of [-1, 1]."""
        self.network.to(scaled.device)
        pictures = self.pictures.to(scaled.device)(scaled.float())
        if self.crop:
            top, left = ((side - self.crop) // 2 for side in self.pictures.sides)
            pictures = pictures[:, :, top : top + self.crop, left : left + self.crop]
        return self.embed((pictures.clamp(0, 1) * 255).round() / 255)
