"""Images through the formats of cameras and of the web, as Pillow writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO

import numpy as np
import torch
from PIL import Image, features
from torch import Tensor

from toolkit import Coded, DataSpec, FileCodec

MODES = {1: "L", 3: "RGB"}
"""What Pillow calls images of so many channels."""
QUALITIES = (5, 15, 30, 50, 75, 90)
"""Of 100; 75 is Pillow's own."""


def codecs_of(spec: DataSpec) -> Mapping[str, FileCodec]:
    """PNG, JPEG and WebP; ValueError for channels that they have not."""
    if spec.channels not in MODES:
        raise ValueError(f"images have 1 or 3 channels, not {spec.channels}")
    webp = "" if features.check("webp") else "the installed Pillow has no WebP"
    return {
        "png": FileCodec(partial(_through, "PNG", _png_numbers)),
        "jpeg": FileCodec(partial(_through, "JPEG", _jpeg_numbers), QUALITIES, "quality {:g}"),
        "webp": FileCodec(partial(_through, "WEBP", _webp_numbers), (*QUALITIES, None), "quality {:g}", webp),
    }


def pixels_of(x: Tensor) -> np.ndarray:
    """Levels ``(channels, height, width)`` as Pillow takes them: ``(height, width[, 3])``."""
    pixels: np.ndarray = x.detach().to("cpu", torch.uint8).permute(1, 2, 0).numpy()
    return pixels[..., 0] if len(x) == 1 else pixels


def _through(form: str, numbers: Callable[[bytes], int], x: Tensor, quality: float | None) -> Coded:
    file = BytesIO()
    lossless = {"lossless": True} if form == "WEBP" else {}
    options = lossless if quality is None else {"quality": int(quality)}
    Image.fromarray(pixels_of(x)).save(file, format=form, **options)
    data = file.getvalue()
    with Image.open(file, formats=(form,)) as image:
        pixels = np.array(image.convert(MODES[len(x)])).reshape(*x.shape[1:], len(x))
    return Coded(data, len(data) - numbers(data), torch.from_numpy(pixels).permute(2, 0, 1).to(x.dtype))


def _png_numbers(data: bytes) -> int:
    """Bytes of the chunks ``IDAT``; each chunk has its length before, and its name and a checksum beside."""
    start, total = 8, 0
    while start < len(data):
        length = int.from_bytes(data[start : start + 4], "big")
        total += length if data[start + 4 : start + 8] == b"IDAT" else 0
        start += length + 12
    return total


def _jpeg_numbers(data: bytes) -> int:
    """Bytes after the segment that starts the scan, up to the mark of the end; the tables come before."""
    start = 2
    while data[start + 1] != 0xDA:
        start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    return len(data) - 2 - (start + 2 + int.from_bytes(data[start + 2 : start + 4], "big"))


def _webp_numbers(data: bytes) -> int:
    """Bytes of the chunks ``VP8`` and ``VP8L``; each chunk has its name and its length before."""
    start, total = 12, 0
    while start < len(data):
        length = int.from_bytes(data[start + 4 : start + 8], "little")
        total += length if data[start : start + 4] in (b"VP8 ", b"VP8L") else 0
        start += 8 + length + length % 2
    return total
