from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Sequence
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from toolkit_image.plain_png import MOST, SILENT, plain_png

Chunk = tuple[bytes, bytes]
COLOR, GRAY = (8, 2, 0, 0, 0), (8, 0, 0, 0, 0)


def png(chunks: Sequence[Chunk]) -> bytes:
    written = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


def chunks(width: int, height: int, form: Sequence[int] = COLOR, cuts: int = 1) -> list[Chunk]:
    """A picture of random bytes, which mean something under each of the filters that its rows have in turn."""
    source, channels = np.random.default_rng(width), 3 if form[1] == 2 else 1
    rows = b"".join(bytes([y % 5]) + source.bytes(width * channels * form[0] // 8) for y in range(height))
    packed = zlib.compress(rows)
    size = -(-len(packed) // cuts)
    pixels = [(b"IDAT", packed[at : at + size]) for at in range(0, len(packed), size)]
    return [(b"IHDR", struct.pack(">II5B", width, height, *form)), *pixels, (b"IEND", b"")]


def by_pillow(content: bytes) -> Image.Image | None:
    """What Pillow's reader of files gives; None where it refuses."""
    try:
        image = Image.open(BytesIO(content))
        image.load()
    except Exception:
        return None
    return image


def same(one: Image.Image | None, other: Image.Image | None) -> bool:
    return (
        one is not None
        and other is not None
        and (one.mode, one.size) == (other.mode, other.size)
        and (one.tobytes() == other.tobytes())
    )


@pytest.mark.parametrize("form", [COLOR, GRAY])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 40), (32, 32), (255, 257)])
@pytest.mark.parametrize("cuts", [1, 3])
def test_pixels_are_those_of_pillows_reader(form: Sequence[int], width: int, height: int, cuts: int) -> None:
    content = png(chunks(width, height, form, cuts))
    assert same(plain_png(content), by_pillow(content))


@pytest.mark.parametrize("name", SILENT)
def test_a_chunk_that_no_pixel_depends_on_is_passed_over(name: bytes) -> None:
    head, *rest = chunks(8, 5)
    assert same(plain_png(png([head, (name, b"whatever"), *rest])), by_pillow(png([head, *rest])))


def saved(image: Image.Image, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def test_what_pillow_writes_is_plain() -> None:
    """Else nothing would be faster."""
    levels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    for image in (Image.fromarray(levels), Image.fromarray(levels[:, :, 0])):
        read = plain_png(saved(image, gamma=0.5, dpi=(72, 72)))
        assert read is not None
        assert np.array_equal(np.asarray(read), np.asarray(image))


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def text() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    return info


def test_whatever_has_more_to_it_is_not_plain() -> None:
    color, gray = Image.new("RGB", (8, 5)), Image.new("L", (8, 5))
    head, pixels, end = chunks(8, 5)
    exif = (b"eXIf", turned().tobytes().removeprefix(b"Exif\0\0"))
    halves = [(b"IDAT", pixels[1][:40]), (b"gAMA", bytes(4)), (b"IDAT", pixels[1][40:])]
    others = {
        "turned behind its pixels": png([head, pixels, exif, end]),
        "pixels with something between": png([head, *halves, end]),
        "without an end": png([head, pixels]),
        "turned": saved(color, exif=turned()),
        "turned by a text": saved(color, pnginfo=text()),
        "transparent color": saved(color, transparency=(0, 0, 0)),
        "transparent level": saved(gray, transparency=0),
        "animated": saved(color, save_all=True, append_images=[Image.new("RGB", (8, 5), "red")]),
        "palette": saved(color.convert("P")),
        "transparency": saved(color.convert("RGBA")),
        "two levels": saved(gray.convert("1")),
        "sixteen bits": saved(gray.convert("I;16")),
        "interlaced": png(chunks(8, 5, (8, 2, 0, 0, 1))),
        "large": saved(Image.new("L", (MOST // 8 + 1, 8))),
        "huge by its header": png([(b"IHDR", struct.pack(">II5B", 100_000, 100_000, *COLOR)), *chunks(8, 5)[1:]]),
        "without pixels": png([(b"IHDR", struct.pack(">II5B", 0, 5, *COLOR)), *chunks(8, 5)[1:]]),
        "jpeg": b"\xff\xd8\xff\xe0" + bytes(64),
        "nothing": b"",
    }
    assert [name for name, content in others.items() if plain_png(content) is not None] == []


def test_no_damage_is_read_as_anything_else_than_pillow_reads() -> None:
    """Bytes changed, cut off, doubled or missing: the file is left to Pillow's reader, or read as there."""
    whole, source = png(chunks(6, 4, cuts=2)), random.Random(0)
    damaged = [whole[:end] for end in range(len(whole))] + [whole[:at] + whole[at // 2 :] for at in range(len(whole))]
    for at in range(len(whole)):
        for value in {0, 255, whole[at] ^ 1, whole[at] ^ 32, source.randrange(256)} - {whole[at]}:
            damaged.append(whole[:at] + bytes([value]) + whole[at + 1 :])
    head, *_, end = chunks(6, 4)
    damaged += [png([head, (b"IDAT", zlib.compress(bytes(count))), end]) for count in range(6 * 3 * 4 + 8)]
    read = [(content, image) for content in damaged if (image := plain_png(content)) is not None]
    assert [content for content, image in read if not same(image, by_pillow(content))] == []
    assert read  # a checksum of the pixels' chunk is asked by neither
