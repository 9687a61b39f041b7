"""Clips as files and as pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ffmpeg_program import accurate, ffmpeg, told
from made_clips import colorful, numbered, numbers, psnr, save
from PIL import Image
from torch import Tensor

from toolkit import DataSpec, ToolkitError
from toolkit_video.clips import ClipDataset, contact_sheet, enlargement, to_clip


def spec_of(frames: int, height: int, width: int, channels: int = 3, rate: float = 10.0) -> DataSpec:
    return DataSpec(channels, (frames, height, width), levels=256, rates=(rate, None, None))


def smooth(spec: DataSpec) -> Tensor:
    frames = colorful(spec.axes[0], 96, 96)
    rows = np.linspace(0, 95, spec.axes[1]).astype(int)
    columns = np.linspace(0, 95, spec.axes[2]).astype(int)
    return to_clip(frames[:, rows][:, :, columns])[: spec.channels]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(64, 64), (33, 33), (32, 48), (7, 130), (144, 160), (131, 129)])
def test_what_is_written_is_read_back(size: tuple[int, int], channels: int, tmp_path: Path) -> None:
    """Every pixel where it was, its color hardly changed; at full size colors are those of four pixels."""
    spec = spec_of(5, *size, channels)
    x, path = smooth(spec), tmp_path / "가 [1], a=b.mp4"
    ClipDataset.write(x, spec, path)
    back = ClipDataset.read(path, spec)
    assert back.shape == x.shape
    assert back.dtype == torch.uint8
    enough = 38 if channels == 1 or enlargement(*size) > 1 else 28
    assert psnr(back, x) > enough
    ClipDataset.write(back, spec, path)
    assert psnr(ClipDataset.read(path, spec), x) > enough - 2


@pytest.mark.parametrize("size", [(64, 64), (33, 33)])
def test_colors_and_light_do_not_drift(size: tuple[int, int], tmp_path: Path) -> None:
    spec = spec_of(6, *size)
    for color in ([255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128], [255, 255, 255], [3, 90, 200]):
        x = torch.tensor(color).view(3, 1, 1, 1).expand(spec.shape)
        ClipDataset.write(x, spec, tmp_path / "a.mp4")
        assert (ClipDataset.read(tmp_path / "a.mp4", spec).long() - x).abs().max() <= 4


@pytest.mark.parametrize("rate", [10.0, 12.5, 29.97, 30000 / 1001, 60.0])
@pytest.mark.parametrize("size", [(64, 64), (33, 33), (144, 145)])
def test_another_program_plays_what_is_written(size: tuple[int, int], rate: float, tmp_path: Path) -> None:
    spec = spec_of(7, *size, rate=rate)
    x, path = smooth(spec), tmp_path / "a.mp4"
    ClipDataset.write(x, spec, path)
    stream = told(path)
    assert (stream["codec_name"], stream["pix_fmt"], stream["color_space"]) == ("h264", "yuv420p", "bt709")
    above, below = stream["avg_frame_rate"].split("/")
    assert int(above) / int(below) == pytest.approx(rate, rel=1e-4)
    assert stream["nb_frames"] == "7"
    factor = enlargement(*size)
    assert (stream["height"], stream["width"]) == (factor * size[0], factor * size[1])
    theirs = ffmpeg(path, "-vf", accurate(path), shape=(7, factor * size[0], factor * size[1], 3))
    assert psnr(theirs[:, factor // 2 :: factor, factor // 2 :: factor], x.permute(1, 2, 3, 0)) > 30


@pytest.mark.parametrize("height", range(1, 300, 7))
def test_frames_are_enlarged_no_more_than_needed(height: int) -> None:
    for width in (height, height + 1, 3 * height):
        factor = enlargement(height, width)
        assert factor * height % 2 == factor * width % 2 == 0
        assert factor == 1 or (factor - 1) * height < 128 or (factor - 1) * height % 2 or (factor - 1) * width % 2
        assert factor * height >= 128


def test_a_file_is_brought_to_the_specs_rate_size_length_and_channels(tmp_path: Path) -> None:
    path = save(tmp_path / "a.mkv", numbered(40, 96, 128), 20)
    for every, channels in ((1, 3), (2, 3), (4, 1)):
        x = ClipDataset.read(path, spec_of(8, 48, 64, channels, 20 / every))
        assert x.shape == (channels, 8, 48, 64)
        assert numbers(x) == list(range(0, 8 * every, every))


def test_what_cannot_be_brought_there_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.mp4", numbered(12))
    with pytest.raises(ValueError, match="12 frames at 10 per second, fewer than required: 13"):
        ClipDataset.read(path, spec_of(13, 32, 32))
    with pytest.raises(ValueError, match="smaller than the required 32 x 64"):
        ClipDataset.read(path, spec_of(4, 64, 32))
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        ClipDataset.read(path, spec_of(4, 32, 32, channels=2))
    with pytest.raises(ValueError, match="no frames per second"):
        ClipDataset.read(path, DataSpec(3, (4, 32, 32), levels=256))
    with pytest.raises(ToolkitError, match="the file does not exist"):
        ClipDataset.read(tmp_path / "b.mp4", spec_of(4, 32, 32))


def test_a_sheet_shows_a_line_for_each_clip(tmp_path: Path) -> None:
    """Clips of one column stand below one another, each pixel where it belongs."""
    spec = spec_of(5, 20, 32, rate=8)
    above, below = torch.randint(256, (2, 2, *spec.shape), dtype=torch.uint8)
    ClipDataset.plot([above, below, above[:1]], spec, tmp_path / "a.png")
    sheet = np.array(Image.open(tmp_path / "a.png"))
    assert sheet.shape == (2 + 5 * 42 + 6, 2 + 5 * 66, 3)
    lines = [(above[0], 2), (below[0], 44), (above[0], 86), (above[1], 134), (below[1], 176)]
    for clip, top in lines:
        for i in range(5):
            left = 2 + 66 * i
            shown = sheet[top : top + 40 : 2, left : left + 64 : 2]
            assert (shown == clip[:, i].permute(1, 2, 0).numpy()).all()
            assert (sheet[top + 1 : top + 40 : 2, left : left + 64 : 2] == shown).all()
    assert (sheet[:2] == 255).all()
    assert (sheet[128:134] == 255).all()


def test_a_sheet_of_long_grey_clips_shows_some_of_their_frames() -> None:
    clip = torch.arange(100).view(1, 1, 100, 1, 1).expand(1, 1, 100, 64, 64)
    sheet = contact_sheet([clip])
    assert sheet.shape == (68, 2 + 24 * 66, 3)
    shown = sheet[30, 30::66, 0].tolist()
    assert shown[0] == 0
    assert shown[-1] == 99
    assert shown == sorted(set(shown))
