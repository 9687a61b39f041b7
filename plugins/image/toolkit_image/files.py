"""Image files: read, written, and plotted side by side."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from toolkit import Dataset, DataSpec, ToolkitError

FORMATS = ("PNG", "JPEG", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MODES = {1: "L", 3: "RGB"}
MARGIN = 2
"""Pixels between the images of a contact sheet."""
LEGIBLE = 128
"""Pixels that the longer side of an image is enlarged to on a contact sheet, at most."""


class ImageDataset(Dataset):
    """A dataset of images ``(channels, height, width)``, uint8 levels 0..255, one file each."""

    suffix: ClassVar[str] = ".png"
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES

    @classmethod
    def read(cls, path: Path, spec: DataSpec) -> Tensor:
        return read_image(path, spec)

    @classmethod
    def write(cls, x: Tensor, spec: DataSpec, path: Path) -> None:
        Image.fromarray(_pixels(x)).save(path, format="PNG")

    @classmethod
    def plot(cls, rows: Sequence[Tensor], spec: DataSpec, path: Path) -> None:
        Image.fromarray(contact_sheet(rows, spec)).save(path, format="PNG")


def read_image(path: Path, spec: DataSpec, centering: tuple[float, float] = (0.5, 0.5)) -> Tensor:
    """A PNG, JPEG or WebP file as levels ``(channels, height, width)``, uint8.

    The camera's orientation is applied, transparency is composited on white, and gray, palette, CMYK and 16-bit
    images are converted to the spec's 1 or 3 channels. A larger image is shrunk until it just covers the
    spec's axes, then cropped; ``centering`` places the window, from (0, 0), left and top, to (1, 1), right
    and bottom. Raises ToolkitError if the file cannot be read, and ValueError, without the name of the file, if the
    image is smaller than the axes or the spec has other channels.
    """
    height, width = spec.axes
    if spec.channels not in MODES:
        raise ValueError(f"images have 1 or 3 channels, not {spec.channels}")
    image = _decode(Path(path), MODES[spec.channels], 2 * max(spec.axes))
    if image.width < width or image.height < height:
        raise ValueError(too_small(image.size, (width, height)))
    image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS, centering=centering)
    pixels = np.array(image).reshape(height, width, spec.channels)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


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
            pixels = _pixels(x).reshape(height, width, spec.channels).repeat(factor, 0).repeat(factor, 1)
            top, left = i * down + MARGIN, j * across + MARGIN
            sheet[top : top + factor * height, left : left + factor * width] = pixels
    return sheet


def _pixels(x: Tensor) -> np.ndarray:
    """Levels ``(channels, height, width)`` as Pillow takes them: ``(height, width[, 3])``."""
    pixels: np.ndarray = x.detach().to("cpu", torch.uint8).permute(1, 2, 0).numpy()
    return pixels[..., 0] if len(x) == 1 else pixels


def image_size(path: Path) -> tuple[int, int]:
    """Width and height by the file's header. ToolkitError if it is not an image."""
    with _named_errors(path), Image.open(path, formats=FORMATS) as image:
        return image.size


def _decode(path: Path, mode: str, enough: int) -> Image.Image:
    """The image in ``mode``; JPEG is decoded at a fraction of its size if that leaves ``enough`` pixels."""
    with warnings.catch_warnings(), _named_errors(path):
        refuse_bombs()
        with Image.open(path, formats=FORMATS) as image:
            image.draft(None, (enough, enough))
            return _flatten(ImageOps.exif_transpose(image)).convert(mode)


def refuse_bombs() -> None:
    """Makes images with more pixels than Pillow deems safe an error; use within ``warnings.catch_warnings``."""
    warnings.simplefilter("error", Image.DecompressionBombWarning)


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Turns Pillow's errors into a ToolkitError that names the file."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise ToolkitError(f"{path}: not a PNG, JPEG or WebP image") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ToolkitError(f"{path}: more than {Image.MAX_IMAGE_PIXELS} pixels, rejected; shrink it first") from error
    except Exception as error:  # Pillow raises a dozen types for damaged files
        raise ToolkitError(f"{path}: cannot be read as an image ({error})") from error


def _flatten(image: Image.Image) -> Image.Image:
    """Without transparency and with 8 bits per channel, which Pillow's own conversions do not guarantee."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA"))
