"""Image files as Pillow reads them: formats, orientation, transparency, and what of a file cannot be read."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from stat import S_ISREG
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from toolkit import ToolkitError
from toolkit_image.plain_png import plain_png

T = TypeVar("T")

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "DIB", "JPEG2000", "PPM", "TGA", "QOI")
"""Those that Pillow reads without another program."""
PNG = b"\x89PNG\r\n\x1a\n"
PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
"""Chunks of a PNG file that its pixels depend on."""
GRAYS = {"L;2": 85, "L;4": 17}
"""What levels of fewer bits are multiplied by."""
SMALL = 1 << 18
"""Bytes of a file that is read at once."""
ORIENTATION = 0x0112
TURNS: dict[int | None, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@cache
def formats() -> tuple[str, ...]:
    """The formats that this Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def suffixes() -> tuple[str, ...]:
    """Suffixes of these formats, in lower case."""
    names = (*formats(), "MPO")  # a JPEG file of several pictures
    return tuple(sorted(suffix for suffix, name in Image.registered_extensions().items() if name in names))


def image_size(path: Path) -> tuple[int, int]:
    """Width and height by the file's header. ToolkitError if it is not an image."""
    return _read(path, lambda image: image.size)


def decode(path: Path, mode: str, enough: int, content: bytes | None = None) -> Image.Image:
    """The image in ``mode``, L or RGB, upright; JPEG is decoded at a fraction of its size with ``enough`` pixels.

    Of several pictures in a file the first. ``content`` is that of the file where it is in memory. ToolkitError if the
    file cannot be read.
    """
    if content is None:
        content = _small(path)
    plain = None if content is None else plain_png(content)
    if plain is not None:
        return plain if plain.mode == mode else plain.convert(mode)

    def pixels(image: Image.Image) -> Image.Image:
        image.draft(None, (enough, enough))
        tiles = getattr(image, "tile", ())
        stored = str(tiles[0][3]) if tiles else ""
        image.load()
        flat = _flatten(image, stored).convert(mode)
        turn = TURNS.get(_orientation(image))
        return flat if turn is None else flat.transpose(turn)

    with warnings.catch_warnings():
        refuse_bombs()
        return _read(path, pixels, content)


def refuse_bombs() -> None:
    """Makes images with more pixels than Pillow deems safe an error; use within ``warnings.catch_warnings``.

    All else that Pillow warns of is metadata, which does not matter for pixels.
    """
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def _read(path: Path, look: Callable[[Image.Image], T], content: bytes | None = None) -> T:
    """What ``look`` says of an image; a PNG of which it cannot is looked at again without its metadata."""
    with _named_errors(path):
        if content is None:
            status = path.stat()
            if not S_ISREG(status.st_mode):  # a pipe would be waited for
                raise ToolkitError(f"{path}: cannot be read as an image (it is no file)")
        if not (status.st_size if content is None else content):
            raise ToolkitError(f"{path}: the file is empty")
        try:
            with Image.open(path if content is None else BytesIO(content), formats=formats()) as image:
                return look(image)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise
        except Exception:
            bare = _bare(path if content is None else content)
            if bare is None:
                raise
        with Image.open(BytesIO(bare), formats=("PNG",)) as image:
            return look(image)


def _small(path: Path) -> bytes | None:
    """A small file's content; None of any other, and where it cannot be read, which is told when it is opened."""
    with suppress(OSError):
        status = path.stat()
        if S_ISREG(status.st_mode) and status.st_size <= SMALL:
            return path.read_bytes()
    return None


def _bare(source: Path | bytes) -> bytes | None:
    """A PNG file without metadata, such as malformed EXIF or a text too long; None if it is none or has none."""
    with source.open("rb") if isinstance(source, Path) else BytesIO(source) as file:
        if file.read(len(PNG)) != PNG:
            return None
        content = PNG + file.read()
    kept, at = [PNG], len(PNG)
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4])
        if content[at + 4 : at + 8] in PIXELS:
            kept.append(content[at:end])
        at = end
    bare = b"".join(kept)
    return bare if len(bare) < len(content) else None


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Turns Pillow's errors into a ToolkitError that names the file."""
    try:
        yield
    except ToolkitError:
        raise
    except UnidentifiedImageError as error:
        names = "PNG, JPEG, WebP or other image that Pillow reads"
        raise ToolkitError(f"{path}: not a {names}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ToolkitError(f"{path}: more than {Image.MAX_IMAGE_PIXELS} pixels, rejected; shrink it first") from error
    except Exception as error:  # Pillow raises a dozen types for damaged files
        raise ToolkitError(f"{path}: cannot be read as an image ({error})") from error


def _orientation(image: Image.Image) -> int | None:
    """How the camera was turned; None where that cannot be read: the pixels are there, whatever is said of them."""
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:
        return None
    return orientation if isinstance(orientation, int) else None


def _flatten(image: Image.Image, stored: str) -> Image.Image:
    """Without transparency and with 8 bits per channel, which Pillow's own conversions do not guarantee.

    ``stored`` is Pillow's word for how the file has its pixels, such as ``RGB;16B``.
    """
    key = image.info.get("transparency")
    if image.mode.startswith("I"):
        return _eight_bits(image, key)
    if image.mode == "F":
        raise ValueError("it has levels that are no integers; save it with 8 or 16 bits")
    if not image.has_transparency_data:
        return image
    if image.mode == "RGB" and "16" in stored and isinstance(key, tuple):
        image.info["transparency"] = tuple(level >> 8 for level in key)  # of the pixels, Pillow keeps as much
    elif image.mode == "L" and stored in GRAYS and isinstance(key, int):
        image.info["transparency"] = key * GRAYS[stored]
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA"))


def _eight_bits(image: Image.Image, key: object) -> Image.Image:
    """Gray of 16 bits, with the level that is transparent, if any."""
    levels = np.asarray(image)
    if levels.size and (int(levels.min()) < 0 or int(levels.max()) > 0xFFFF):
        raise ValueError(f"its levels are {levels.min()} to {levels.max()}; save it with 8 or 16 bits")
    gray = (levels.astype(np.int64) >> 8).astype(np.uint8)
    if isinstance(key, int):
        gray[levels == key] = 255
    return Image.fromarray(gray)
