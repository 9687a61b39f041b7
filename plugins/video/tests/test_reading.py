"""Frames out of files: the right ones, the same by whatever way, with the colors and the turn that the file says."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from ffmpeg_program import accurate, ffmpeg
from made_clips import colorful, numbered, numbers, psnr, save, sound_only

from toolkit import ToolkitError
from toolkit_video import pictures, reading
from toolkit_video.pictures import crop
from toolkit_video.reading import Timeline, read_frames, read_timeline


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The times of the frames that are decoded."""
    seen: list[int | None] = []
    decode = reading.decoded

    def count(packets: Any) -> Any:
        for frame in decode(packets):
            seen.append(frame.pts)
            yield frame

    monkeypatch.setattr(reading, "decoded", count)
    return seen


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
def test_only_what_a_window_needs_is_decoded(suffix: str, tmp_path: Path, shown: list[int | None]) -> None:
    options = {"g": "10", "preset": "ultrafast"}
    path = save(tmp_path / f"a.{suffix}", numbered(200), 25, options=options)
    timeline = read_timeline(path)
    assert len(shown) == (200 if timeline.counted else 1)
    assert timeline.counted == (suffix in ("avi", "ts"))
    assert len(timeline.keys) == 19
    shown.clear()
    assert numbers(read_frames(path, timeline, range(154, 160), 3)) == list(range(154, 160))
    assert len(shown) <= 10 + (10 if suffix == "ts" else 0)  # which finds a key or the one before


def timeline_of(times: list[float]) -> Timeline:
    ticks = np.round(np.array(times) * 1000).astype(np.int64)
    return Timeline(Fraction(1, 1000), 30.0, ticks, ticks[:1], False)


@pytest.mark.parametrize("every", [1, 2, 3, 5])
def test_a_whole_part_of_the_rate_takes_every_nth_frame(every: int) -> None:
    """Though milliseconds round the times."""
    timeline = timeline_of([i / 30 for i in range(100)])
    assert timeline.frames(30 / every).tolist() == list(range(0, 100, every))


def test_a_multiple_of_the_rate_repeats_frames() -> None:
    shown = timeline_of([i / 10 for i in range(4)]).frames(20)
    assert shown.tolist() in ([0, 0, 1, 1, 2, 2, 3], [0, 1, 1, 2, 2, 3, 3])


@pytest.mark.parametrize("rate", [7.0, 12.5, 24.0, 29.97, 30.0, 48.0])
def test_a_frame_is_never_further_off_than_half_of_one(rate: float) -> None:
    timeline = timeline_of([i / 30 for i in range(200)])
    shown = timeline.frames(rate)
    off = timeline.times[shown] - np.arange(len(shown)) / rate
    assert np.abs(off).max() <= 1 / 30 / 2 + 1e-3 or rate > 30
    assert off.max() <= 1 / 60 + 1e-3
    assert off.min() > -1 / 30
    assert (np.diff(shown) >= 0).all()


def test_frames_of_irregular_length_are_shown_as_long_as_they_last() -> None:
    """A telephone's film that stops for a second, and goes on twice as fast."""
    timeline = timeline_of([0, 0.1, 0.2, 1.2, 1.25, 1.3, 1.35, 1.4])
    assert timeline.frames(10).tolist() == [0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 5, 7]


def test_irregular_files_are_read_by_their_times(tmp_path: Path) -> None:
    ticks = [0, 100, 200, 1200, 1250, 1300, 1350, 1400]
    for name in ("a.mp4", "a.mkv"):
        path = save(tmp_path / name, numbered(8), ticks=ticks, base=Fraction(1, 1000))
        timeline = read_timeline(path)
        assert (timeline.times * 1000).round().tolist() == ticks
        shown = timeline.frames(10)
        assert numbers(read_frames(path, timeline, shown, 3)) == shown.tolist()
        assert len(set(shown[2:12].tolist())) == 1


def test_a_file_that_says_nothing_of_its_rate_is_measured(tmp_path: Path) -> None:
    path = save(tmp_path / "a.mkv", numbered(9), 50, ticks=[i * 100 for i in range(9)], base=Fraction(1, 1000))
    assert read_timeline(path).rate == pytest.approx(10)


MATRICES = {"BT.601": int(Colorspace.ITU601), "BT.709": 1, "BT.2020": int(Colorspace.BT2020)}


@pytest.mark.parametrize("span", [ColorRange.MPEG, ColorRange.JPEG])
@pytest.mark.parametrize("matrix", MATRICES)
def test_colors_are_those_that_were_filmed(matrix: str, span: ColorRange, tmp_path: Path) -> None:
    frames = colorful()
    path = save(
        tmp_path / "a.mp4",
        frames,
        pix_fmt="yuv444p",
        options={"crf": "0", "preset": "ultrafast"},
        colors=(MATRICES[matrix], int(span)),
    )
    read = read_frames(path, read_timeline(path), range(len(frames)), 3)
    assert np.abs(read.astype(int) - frames).max() <= 4  # rounding to eight bits, twice
    theirs = ffmpeg(path, "-vf", accurate(path), shape=frames.shape)
    assert np.abs(read.astype(int) - theirs).max() <= 2


def test_colors_that_a_file_does_not_name_are_taken_as_ffmpeg_takes_them(tmp_path: Path) -> None:
    frames = colorful()
    path = save(tmp_path / "a.mp4", frames)
    read = read_frames(path, read_timeline(path), range(len(frames)), 3)
    theirs = ffmpeg(path, "-vf", accurate(path), shape=frames.shape)
    assert np.abs(read.astype(int) - theirs).max() <= 2


def test_grey_is_the_light_of_the_colors(tmp_path: Path) -> None:
    grey = np.broadcast_to(np.linspace(0, 255, 64).round().astype(np.uint8)[None, None, :, None], (3, 64, 64, 3))
    for span in (ColorRange.MPEG, ColorRange.JPEG):
        path = save(tmp_path / f"{int(span)}.mp4", grey, options={"crf": "0"}, colors=(1, int(span)))
        read = read_frames(path, read_timeline(path), range(3), 1)
        assert read.shape == (3, 64, 64, 1)
        assert np.abs(read[..., 0].astype(int) - grey[..., 0]).max() <= 2


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_telephone_that_is_held_upright(rotation: int, tmp_path: Path) -> None:
    """The display matrix turns counterclockwise."""
    frames = colorful(height=48, width=96)
    path = save(tmp_path / "a.mp4", frames, rotation=rotation)
    read = read_frames(path, read_timeline(path), range(len(frames)), 3)
    expected = np.rot90(frames, rotation // 90, (1, 2))
    assert read.shape == expected.shape
    assert psnr(read, expected) > 25
    theirs = ffmpeg(path, shape=expected.shape)
    assert psnr(read, theirs) > 25


@pytest.mark.parametrize("exchanged", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("upturned", [False, True])
def test_every_turn_is_undone(exchanged: bool, mirrored: bool, upturned: bool) -> None:
    """Where a pixel goes is what the matrix says of its place, counted from the middle."""
    across, down = (-1 if mirrored else 1), (-1 if upturned else 1)
    a, b, c, d = (0, down, across, 0) if exchanged else (across, 0, 0, down)
    matrix = np.array([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30], np.int32)

    class Frame:
        side_data = {"DISPLAYMATRIX": matrix.tobytes()}  # noqa: RUF012

    pixels = np.arange(15).reshape(3, 5, 1)
    turned = pictures._turned(pixels, pictures._turn(Frame()))  # type: ignore[arg-type]
    assert turned.shape == ((5, 3, 1) if exchanged else (3, 5, 1))
    for y in range(3):
        for x in range(5):
            far, deep = a * (x - 2) + c * (y - 1), b * (x - 2) + d * (y - 1)
            assert turned[deep + turned.shape[0] // 2, far + turned.shape[1] // 2, 0] == pixels[y, x, 0]


def test_frames_are_shrunk_until_they_cover_and_then_cropped(tmp_path: Path) -> None:
    """A picture of three squares side by side: the crop holds the square that it is placed over."""
    frames = np.repeat(np.repeat(np.array([[[[250, 0, 0], [0, 250, 0], [0, 0, 250]]]]), 64, 1), 64, 2).astype(np.uint8)
    for rotation, axis in ((None, 0), (90, 1)):
        path = save(tmp_path / f"{axis}.mp4", np.repeat(frames, 2, 0), rotation=rotation)
        timeline = read_timeline(path)
        for place, channel in ((0.0, 0), (0.5, 1), (1.0, 2)):
            centering = (place, 0.5) if axis == 0 else (0.5, 1 - place)
            whole = read_frames(path, timeline, [0], 3, (16, 16))
            assert whole.shape == ((1, 16, 48, 3) if axis == 0 else (1, 48, 16, 3))
            read = crop(whole, (16, 16), centering)
            assert read.shape == (1, 16, 16, 3)
            assert read[0, 2:-2, 2:-2].mean((0, 1)).argmax() == channel
            assert read[0, 2:-2, 2:-2, channel].min() > 200


def test_frames_smaller_than_needed_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.mp4", numbered(2))
    with pytest.raises(ValueError, match=r"64 x 48 .* smaller than the required 50 x 50"):
        read_frames(path, read_timeline(path), [0], 3, (50, 50))


def test_what_is_no_video_says_so(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match=r"a.m4a: has no video"):
        read_timeline(sound_only(tmp_path / "a.m4a"))
    (tmp_path / "a.mp4").write_text("a letter, and no film\n" * 100)
    with pytest.raises(ToolkitError, match=r"a.mp4: cannot be read as video"):
        read_timeline(tmp_path / "a.mp4")
    with pytest.raises(ToolkitError, match=r"b.mp4: the file does not exist"):
        read_timeline(tmp_path / "b.mp4")


def test_the_cover_of_a_song_is_no_video(tmp_path: Path) -> None:
    if which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    sound, cover = sound_only(tmp_path / "a.m4a"), tmp_path / "cover.png"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1", cover], check=True
    )
    words = ["-i", sound, "-i", cover, "-map", "0", "-map", "1", "-c", "copy", "-disposition:v:0", "attached_pic"]
    subprocess.run(["ffmpeg", "-v", "error", *words, tmp_path / "b.m4a"], check=True)
    with pytest.raises(ToolkitError, match="has no video"):
        read_timeline(tmp_path / "b.m4a")
