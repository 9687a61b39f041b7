"""Image files: read, written, and plotted side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from toolkit import Dataset, DataSpec, FileCodec
from toolkit_image import decoding
from toolkit_image.codecs import MODES, codecs_of, pixels_of
from toolkit_image.decoding import decode

MARGIN = 2
"""Pixels between the images of a contact sheet."""
LEGIBLE = 128
"""Pixels that the longer side of an image is enlarged to on a contact sheet, at most."""


class ImageDataset(Dataset):
    """A dataset of images ``(channels, height, width)``, uint8 levels 0..255, one file each."""

    suffix: ClassVar[str] = ".png"
    suffixes: ClassVar[tuple[str, ...]] = decoding.suffixes()

    @classmethod
    def read(cls, path: Path, spec: DataSpec) -> Tensor:
        return read_image(path, spec)

    @classmethod
    def read_bytes(cls, content: bytes, name: str, spec: DataSpec) -> Tensor:
        return read_image(Path(name), spec, content=content)

    @classmethod
    def write(cls, x: Tensor, spec: DataSpec, path: Path) -> None:
        Image.fromarray(pixels_of(x)).save(path, format="PNG")

    @classmethod
    def codecs(cls, spec: DataSpec) -> Mapping[str, FileCodec]:
        return codecs_of(spec)

    @classmethod
    def plot(cls, rows: Sequence[Tensor], spec: DataSpec, path: Path) -> None:
        Image.fromarray(contact_sheet(rows, spec)).save(path, format="PNG")


def read_image(
    path: Path, spec: DataSpec, centering: tuple[float, float] = (0.5, 0.5), content: bytes | None = None
) -> Tensor:
    """A file of any format of ``toolkit_image.decoding`` as levels ``(channels, height, width)``, uint8.

    The camera's orientation is applied, transparency is composited on white, and gray, palette, CMYK and 16-bit
    images are converted to the spec's 1 or 3 channels. Of several pictures in a file the first is read. A larger image
    is shrunk until it just covers the spec's axes, then cropped; ``centering`` places the window, from (0, 0), left and
    top, to (1, 1), right and bottom. Raises ToolkitError if the file cannot be read, and ValueError, without the name
    of the file, if the image is smaller than the axes or the spec has other channels.
    """
    height, width = spec.axes
    if spec.channels not in MODES:
        raise ValueError(f"images have 1 or 3 channels, not {spec.channels}")
    image = decode(path, MODES[spec.channels], 2 * max(spec.axes), content)
    if image.width < width or image.height < height:
        raise ValueError(too_small(image.size, (width, height)))
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS, centering=centering)
    pixels = np.asarray(image).reshape(height, width, spec.channels)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def too_small(size: tuple[int, int], needed: tuple[int, int]) -> str:
    """Both are width and height."""
    width, height = needed
    return f"the image is {size[0]} x {size[1]} (width x height), smaller than the required {width} x {height}"


def contact_sheet(rows: Sequence[Tensor], spec: DataSpec) -> np.ndarray:
    """Rows of images as one picture ``(height, width, 3)``, small ones enlarged by a whole factor."""
    height, width = spec.axes
    factor = max(1, LEGIBLE // max(spec.axes))
    down, across = factor * height + MARGIN, factor * width + MARGIN
    columns = max(len(row) for row in rows)
    sheet = np.full((len(rows) * down + MARGIN, columns * across + MARGIN, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, x in enumerate(row):
            pixels = pixels_of(x).reshape(height, width, spec.channels).repeat(factor, 0).repeat(factor, 1)
            top, left = i * down + MARGIN, j * across + MARGIN
            sheet[top : top + factor * height, left : left + factor * width] = pixels
    return sheet
