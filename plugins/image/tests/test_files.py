from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from toolkit import DataSpec, ToolkitError
from toolkit_image.decoding import image_size
from toolkit_image.files import ImageDataset, contact_sheet, read_image

COLOR = DataSpec(3, (8, 12), levels=256)
GREY = DataSpec(1, (8, 12), levels=256)


def picture(height: int = 8, width: int = 12, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def png(
    width: int,
    height: int,
    rows: bytes = b"",
    bits: int = 8,
    kind: int = 0,
    extra: dict[bytes, bytes] | None = None,
) -> bytes:
    """A PNG, gray by default, that says it has this size, whatever the rows, with chunks before them."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    parts = {b"IHDR": struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0), **(extra or {})}
    parts |= {b"IDAT": zlib.compress(rows), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, content) for name, content in parts.items())


@pytest.mark.parametrize("spec", [COLOR, GREY])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_written_then_read_is_the_same(spec: DataSpec, dtype: torch.dtype, tmp_path: Path) -> None:
    x = torch.randint(256, spec.shape).to(dtype)
    path = tmp_path / "가 [1], a=b.png"
    ImageDataset.write(x, spec, path)
    back = ImageDataset.read(path, spec)
    assert back.dtype == torch.uint8
    assert back.is_contiguous()
    assert torch.equal(back.to(dtype), x)


@pytest.mark.parametrize(("suffix", "worst"), [("png", 0), ("webp", 0), ("jpg", 12)])
def test_formats(suffix: str, worst: int, tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 8 * 12 * 3).reshape(8, 12, 3).astype(np.uint8)
    options = {"lossless": True} if suffix == "webp" else {"quality": 98, "subsampling": 0} if worst else {}
    path = saved(Image.fromarray(smooth), tmp_path / f"a.{suffix}", **options)
    x = read_image(path, COLOR).permute(1, 2, 0).int()
    assert (x - torch.from_numpy(smooth).int()).abs().max() <= worst


def test_grey_becomes_color_and_back(tmp_path: Path) -> None:
    grey = picture(channels=1)
    path = saved(Image.fromarray(grey), tmp_path / "grey.png")
    assert torch.equal(read_image(path, COLOR), torch.from_numpy(grey).expand(3, -1, -1))
    assert torch.equal(read_image(path, GREY)[0], torch.from_numpy(grey))


def test_palette(tmp_path: Path) -> None:
    image = Image.fromarray(picture(channels=1) % 4)
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 8, 7])
    x = read_image(saved(image, tmp_path / "palette.png"), COLOR)
    table = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]], dtype=torch.uint8)
    assert torch.equal(x, table[torch.from_numpy(picture(channels=1) % 4).long()].permute(2, 0, 1))


def test_cmyk(tmp_path: Path) -> None:
    path = saved(Image.new("CMYK", (12, 8), (0, 255, 255, 0)), tmp_path / "print.jpg", quality=98)
    red = read_image(path, COLOR).float().mean((1, 2))
    assert red[0] > 240
    assert red[1:].max() < 15


@pytest.mark.parametrize("spec", [COLOR, GREY])
def test_transparency_is_laid_over_white(spec: DataSpec, tmp_path: Path) -> None:
    pixels = np.zeros((8, 12, 4), np.uint8)
    pixels[:, 4:, 3] = 255
    pixels[:, 8:, 3] = 51
    x = read_image(saved(Image.fromarray(pixels), tmp_path / "glass.png"), spec)
    assert x[..., :4].unique().tolist() == [255]
    assert x[..., 4:8].unique().tolist() == [0]
    assert x[..., 8:].unique().tolist() == [204]


def test_a_transparent_palette_entry_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (12, 8), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    path = saved(image, tmp_path / "glass.png", transparency=0)
    assert read_image(path, COLOR).unique().tolist() == [255]


def test_sixteen_bits_keep_their_upper_eight(tmp_path: Path) -> None:
    deep = (picture(channels=1).astype(np.uint16) << 8) + 77
    x = read_image(saved(Image.fromarray(deep), tmp_path / "deep.png"), GREY)
    assert torch.equal(x[0], torch.from_numpy(picture(channels=1)))


@pytest.mark.parametrize(("bits", "key"), [(1, 1), (2, 2), (4, 5), (8, 77), (16, 0x4D12)])
def test_a_transparent_level_of_gray_is_white_at_every_depth(bits: int, key: int, tmp_path: Path) -> None:
    levels = np.zeros((8, 16), np.uint32)
    levels[:, 8:] = key
    packed = np.unpackbits(levels.astype(">u4").view(np.uint8).reshape(8, 16, 4), axis=2)[:, :, -bits:].reshape(8, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(packed, axis=1))
    path = tmp_path / "key.png"
    path.write_bytes(png(16, 8, rows, bits=bits, extra={b"tRNS": struct.pack(">H", key)}))
    x = read_image(path, DataSpec(1, (8, 16), levels=256))
    assert x[..., :8].unique().tolist() == [0]
    assert x[..., 8:].unique().tolist() == [255]


@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_color_is_white(bits: int, tmp_path: Path) -> None:
    key = (np.array([200, 100, 7]) << (bits - 8)).astype("u1" if bits == 8 else ">u2")
    pixels = np.zeros((8, 12, 3), key.dtype)
    pixels[:, 6:] = key
    path = tmp_path / "key.png"
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    path.write_bytes(png(12, 8, rows, bits=bits, kind=2, extra={b"tRNS": struct.pack(">HHH", *map(int, key))}))
    x = read_image(path, COLOR)
    assert x[..., :6].unique().tolist() == [0]
    assert x[..., 6:].unique().tolist() == [255]


@pytest.mark.parametrize("chunk", [b"eXIf", b"zTXt", b"iCCP", b"pHYs", b"gAMA", b"acTL"])
@pytest.mark.parametrize("content", [b"garbage!", b"a\0\0" + zlib.compress(bytes(1 << 22)), b""])
def test_metadata_does_not_decide_over_pixels(chunk: bytes, content: bytes, tmp_path: Path) -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in picture(channels=1))
    path = tmp_path / "a.png"
    path.write_bytes(png(12, 8, rows, extra={chunk: content}))
    assert image_size(path) == (12, 8)
    assert torch.equal(read_image(path, GREY)[0], torch.from_numpy(picture(channels=1)))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_malformed_exif_is_none(suffix: str, tmp_path: Path) -> None:
    image = Image.fromarray(picture(8, 12))
    plain = read_image(saved(image, tmp_path / f"plain.{suffix}"), COLOR)
    for exif in (b"garbage!", b"Exif\0\0garbage!", b"Exif\0\0II*\0\xff\xff\xff\x7f"):
        options = {} if suffix == "tif" else {"exif": exif}
        assert torch.equal(read_image(saved(image, tmp_path / f"a.{suffix}", **options), COLOR), plain)


@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation_is_as_pillow_turns_it(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    square = DataSpec(3, (8, 8), levels=256)
    path = saved(Image.fromarray(picture(8, 8)), tmp_path / "turned.png", exif=exif)
    with Image.open(path) as image:
        upright = np.array(ImageOps.exif_transpose(image)).transpose(2, 0, 1)
    assert torch.equal(read_image(path, square), torch.from_numpy(upright))


@pytest.mark.parametrize("levels", [np.linspace(0, 1, 96), np.full(96, 70_000, np.int32), np.full(96, -1, np.int32)])
def test_levels_of_which_nothing_says_what_is_white_are_refused(levels: np.ndarray, tmp_path: Path) -> None:
    levels = levels.astype(np.float32) if levels.dtype.kind == "f" else levels
    path = saved(Image.fromarray(levels.reshape(8, 12)), tmp_path / "science.tif")
    with pytest.raises(ToolkitError, match="save it with 8 or 16 bits"):
        read_image(path, GREY)


def test_the_cameras_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show the image a quarter turn clockwise
    path = saved(Image.fromarray(picture(12, 8)), tmp_path / "turned.png", exif=exif)
    upright = np.rot90(picture(12, 8), -1).transpose(2, 0, 1).copy()
    assert torch.equal(read_image(path, COLOR), torch.from_numpy(upright))


def test_a_larger_image_is_shrunk_and_cropped_in_the_middle(tmp_path: Path) -> None:
    wide = np.zeros((16, 72, 3), np.uint8)
    wide[:, 24:48] = 200  # as wide as the window after shrinking by two
    x = read_image(saved(Image.fromarray(wide), tmp_path / "wide.png"), COLOR)
    assert x[:, :, 1:-1].min() > 190
    assert x.min() > 150  # the filter looks over the edge


def test_the_window_can_be_placed(tmp_path: Path) -> None:
    wide = np.zeros((8, 36, 3), np.uint8)
    wide[:, :12] = 50
    path = saved(Image.fromarray(wide), tmp_path / "wide.png")
    assert read_image(path, COLOR, (0.0, 0.5)).unique().tolist() == [50]
    assert read_image(path, COLOR, (1.0, 0.5)).unique().tolist() == [0]


def test_a_large_jpeg_looks_like_the_same_png(tmp_path: Path) -> None:
    rough = Image.fromarray(picture(10, 15)).resize((600, 400), Image.Resampling.BICUBIC)
    fast = read_image(saved(rough, tmp_path / "a.jpg", quality=95), COLOR)
    exact = read_image(saved(rough, tmp_path / "a.png"), COLOR)
    assert (fast.int() - exact.int()).abs().float().mean() < 2


@pytest.mark.parametrize(("height", "width"), [(7, 100), (100, 11), (7, 11)])
def test_a_smaller_image_is_refused_with_both_sizes(height: int, width: int, tmp_path: Path) -> None:
    path = saved(Image.fromarray(picture(height, width)), tmp_path / "small.png")
    with pytest.raises(ValueError, match=rf"^the image is {width} x {height} .* 12 x 8$"):
        read_image(path, COLOR)


def test_other_channels_are_refused(tmp_path: Path) -> None:
    path = saved(Image.fromarray(picture()), tmp_path / "a.png")
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        read_image(path, DataSpec(2, (8, 12), levels=256))


def encoded(suffix: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture(80, 120)).save(stream, suffix)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the file is empty"),
        (b"a letter, not a picture\n", "not a PNG"),
        (encoded("ICO"), "not a PNG"),
        (encoded("PNG")[:1000], "cannot be read"),
        (encoded("JPEG")[:1000], "cannot be read"),
        (encoded("WEBP")[:1000], "."),
        (png(12, 8, b"short"), "cannot be read"),
        (png(11_000, 11_000), "pixels, rejected"),
        (png(100_000, 100_000), "pixels, rejected"),
    ],
    ids=["empty", "text", "icon", "cut png", "cut jpeg", "cut webp", "short rows", "bomb", "large bomb"],
)
def test_what_is_no_image_is_told_in_a_sentence(content: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(ToolkitError, match=why) as caught:
        read_image(path, COLOR)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_told_alike(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.png"):
        with pytest.raises(ToolkitError, match=f"{path}: cannot be read"):
            read_image(path, COLOR)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_contact_sheet_shows_every_image_enlarged(channels: int) -> None:
    spec = DataSpec(channels, (32, 32), levels=256)
    rows = [torch.full((n, *spec.shape), 10 * n) for n in (3, 1)]
    sheet = contact_sheet(rows, spec)
    assert sheet.shape == (2 + 2 * 130, 2 + 3 * 130, 3)
    for i, j, level in [(0, 0, 30), (0, 2, 30), (1, 0, 10), (1, 1, 255)]:
        tile = sheet[2 + 130 * i : 130 * (i + 1), 2 + 130 * j : 130 * (j + 1)]
        assert np.unique(tile).tolist() == [level]
    assert np.unique(sheet[:2]).tolist() == [255]
    assert np.unique(sheet[:, 130:132]).tolist() == [255]


def test_enlarging_repeats_pixels() -> None:
    spec = DataSpec(3, (32, 32), levels=256)
    x = torch.from_numpy(picture(32, 32)).permute(2, 0, 1)
    sheet = contact_sheet([x[None]], spec)
    assert np.array_equal(sheet[2:130:4, 2:130:4], picture(32, 32))
    assert np.array_equal(sheet[5:130:4, 5:130:4], picture(32, 32))


def test_a_large_image_is_drawn_as_it_is(tmp_path: Path) -> None:
    spec = DataSpec(3, (200, 100), levels=256)
    ImageDataset.plot([torch.zeros(2, *spec.shape, dtype=torch.int64)], spec, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.size == (2 + 2 * 102, 2 + 202)
