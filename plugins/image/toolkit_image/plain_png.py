"""Small PNG files that have nothing but pixels: read without the questions that other files are asked."""

from __future__ import annotations

from struct import Struct
from zlib import crc32

from PIL import Image

START = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4) + b"IHDR"
HEADER = Struct(">II5sI")
"""Width, height, form and the checksum of the header."""
MODES = {bytes((8, 0, 0, 0, 0)): "L", bytes((8, 2, 0, 0, 0)): "RGB"}
"""By form, which is bits, kind of color, compression, filter and interlacing: 8 bits a channel, row by row."""
SILENT = (b"sRGB", b"gAMA", b"cHRM", b"iCCP", b"sBIT", b"bKGD", b"hIST", b"pHYs", b"tIME")
"""Chunks that no pixel depends on, nor which side is up: of colors on a screen, of sizes and times."""
END = bytes(4) + b"IEND" + crc32(b"IEND").to_bytes(4)
MOST = 1 << 16
"""Pixels: of larger images, the pixels themselves take the time."""


def plain_png(content: bytes) -> Image.Image | None:
    """The image, L or RGB; None where the file is anything else, or not whole: it is to be read as all others are.

    Pillow's decoder is given the compressed pixels at once, which spares small files what its reader of PNG files asks
    of them, and gives the same (``benchmarks/shards.py``).
    """
    if not content.startswith(START) or len(content) < 33:
        return None
    width, height, form, checksum = HEADER.unpack_from(content, 16)
    mode = MODES.get(form)
    if mode is None or not 0 < width * height <= MOST or crc32(content[12:29]) != checksum:
        return None
    compressed = _compressed(content)
    if compressed is None:
        return None
    try:
        return Image.frombytes(mode, (width, height), compressed, "zip", mode)
    except Exception:  # Pillow raises a dozen types for damaged files
        return None


def _compressed(content: bytes) -> bytes | None:
    """What the chunks of pixels hold; None where there are others that are not silent, or is no end behind them."""
    at, found = 33, list[bytes]()
    while (name := content[at + 4 : at + 8]) == b"IDAT" or (name in SILENT and not found):
        end = at + 12 + int.from_bytes(content[at : at + 4])
        if name == b"IDAT":
            found.append(content[at + 8 : end - 4])
        at = end
    return b"".join(found) if content[at : at + 12] == END else None
