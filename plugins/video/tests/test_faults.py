"""Files that are odd or made to hurt: shown as a player shows them, or refused in a sentence and without the memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from made_clips import colorful, numbered, numbers, psnr, save
from video_containers import cut, plain

from toolkit import ToolkitError
from toolkit_video import frames
from toolkit_video.actions import read_labels, read_numbers
from toolkit_video.folder import FolderDataset
from toolkit_video.reading import read_frames, read_timeline
from toolkit_video.timelines import scan_timelines


def read(path: Path, size: tuple[int, int] | None = None, channels: int = 3) -> np.ndarray:
    timeline = read_timeline(path)
    return read_frames(path, timeline, range(len(timeline.ticks)), channels, size)


def test_what_a_cut_leaves_out_is_not_shown_and_not_counted(tmp_path: Path) -> None:
    """A second of 10 frames is cut off; the keyframe before it is needed, and hidden."""
    whole = save(tmp_path / "whole.mp4", numbered(40), options={"g": "16", "preset": "medium", "bf": "2"})
    cut(whole, tmp_path / "cut.mp4", 1.0)
    timeline = read_timeline(tmp_path / "cut.mp4")
    assert numbers(read(tmp_path / "cut.mp4")) == list(range(10, 40))
    assert len(timeline.ticks) == 30
    assert not timeline.counted
    shown = timeline.frames(5)
    assert numbers(read_frames(tmp_path / "cut.mp4", timeline, shown, 3)) == list(range(10, 40, 2))


def test_cut_clips_are_examples_like_others(tmp_path: Path) -> None:
    for i in range(3):
        whole = save(tmp_path / "whole.mp4", numbered(40, 64, first=50 * i), options={"g": "16", "preset": "medium"})
        (tmp_path / "cut").mkdir(exist_ok=True)
        cut(whole, tmp_path / "cut" / f"{i}.mp4", 1.0)
    dataset = FolderDataset(root=str(tmp_path / "cut"), frames=30, size=32)
    for split in ("train", "val", "test"):
        (first, *rest) = numbers(dataset.example(split, 0, None)["x"])
        assert first % 50 == 10
        assert rest == list(range(first + 1, first + 30))


def ramp(width: int) -> np.ndarray:
    """Three frames that are black on their left side and white on their right."""
    return np.broadcast_to(np.linspace(0, 255, width).astype(np.uint8)[:, None], (3, 120, width, 3))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "ts", "avi"])
@pytest.mark.parametrize("aspect", [Fraction(4, 3), Fraction(8, 9)])
def test_pixels_that_are_not_square_are_stretched(suffix: str, aspect: Fraction, tmp_path: Path) -> None:
    path = save(tmp_path / f"a.{suffix}", ramp(160), 25, aspect=aspect)
    across = round(160 * aspect)
    assert read(path).shape == (3, 120, across, 3)
    assert psnr(read(path), ramp(across)) > 40
    assert read(path, (60, 60)).shape == (3, 60, round(60 * across / 120), 3)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_frame_is_stretched_before_it_is_turned(rotation: int, tmp_path: Path) -> None:
    path = save(tmp_path / "a.mp4", colorful(3, 120, 160), rotation=rotation, aspect=Fraction(4, 3))
    straight = save(tmp_path / "b.mp4", colorful(3, 120, 160), aspect=Fraction(4, 3))
    assert (read(path) == np.rot90(read(straight), rotation // 90, (1, 2))).all()


def test_pixels_that_nobody_films_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.mkv", ramp(160), aspect=Fraction(100))
    with pytest.raises(ToolkitError, match=r"a.mkv: its pixels are 100 times as wide as they are high"):
        read_timeline(path)


def test_what_is_transparent_lies_over_white(tmp_path: Path) -> None:
    """In the left half nothing is seen, in the right half half of it."""
    pixels = np.zeros((2, 32, 32, 4), np.uint8)
    pixels[..., 0] = 200
    pixels[:, :, 16:, 3] = 128
    with av.open(str(tmp_path / "a.mov"), "w") as container:
        stream = container.add_stream("png", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "rgba"
        for frame in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgba")))
        container.mux(stream.encode(None))
    shown = read(tmp_path / "a.mov")
    assert (shown[:, :, :16] == 255).all()
    assert np.abs(shown[:, :, 16:].astype(int) - [227, 127, 127]).max() <= 1
    assert read(tmp_path / "a.mov", (16, 16), 1)[:, :, :7].min() == 255


def test_a_comment_after_the_last_frame_of_a_gif_is_no_frame(tmp_path: Path) -> None:
    path = save(tmp_path / "a.gif", numbered(12), codec="gif", pix_fmt="rgb8")
    content = path.read_bytes()
    assert content.endswith(b";")
    for trailer in (b"\x21\xfe\x05hello\x00;", b"\x21\xfe\x05hello\x00\x21\xff\x0bXMP DataXMP\x03abc\x00;", b";" * 9):
        path.write_bytes(content[:-1] + trailer)
        assert len(read_timeline(path).ticks) == 12
        assert numbers(read(path)) == list(range(12))


def test_the_rate_of_frames_without_times_is_that_of_the_file(tmp_path: Path) -> None:
    """AVI states a rate of 600, at which 23 of 24 frames are left out, and hides that frames are reordered."""
    options = {"preset": "medium", "bf": "3", "g": "12"}
    ticks = [24 * i for i in range(40)]
    path = save(tmp_path / "a.avi", numbered(40), 600, options=options, ticks=ticks, base=Fraction(1, 600))
    timeline = read_timeline(path)
    assert timeline.counted
    assert timeline.rate == pytest.approx(25)
    assert numbers(read_frames(path, timeline, timeline.frames(5), 3)) == list(range(0, 40, 5))


def test_what_was_counted_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.ts", numbered(30), 25, codec="mpeg2video", options={"g": "10"})
    (first,) = scan_timelines(tmp_path, ["a.ts"])[0].values()
    monkeypatch.setattr("toolkit_video.timelines.read_timeline", None)
    (again,) = scan_timelines(tmp_path, ["a.ts"])[0].values()
    assert again.counted
    for name in ("ticks", "keys", "checks"):
        assert (getattr(again, name) == getattr(first, name)).all()
    assert len(again.keys) == len(again.checks) == 2
    assert again._replace(ticks=0, keys=0, checks=0) == first._replace(ticks=0, keys=0, checks=0)  # type: ignore[arg-type]


def test_a_key_that_is_another_frame_is_not_counted_from(tmp_path: Path) -> None:
    """As where a seek went elsewhere, or times are wrong after one."""
    path = save(tmp_path / "a.ts", numbered(30), 25, codec="mpeg2video", options={"g": "10"})
    timeline = read_timeline(path)
    wrong = timeline._replace(checks=timeline.checks + 1)
    later = timeline._replace(keys=timeline.keys + 3600)  # a frame's length
    for other in (timeline, wrong, later):
        assert numbers(read_frames(path, other, [24, 25], 3)) == [24, 25]


def test_a_recording_begins_and_ends_anywhere(tmp_path: Path) -> None:
    """What comes before its first keyframe, and after its last whole frame, is not shown."""
    path = save(tmp_path / "a.ts", numbered(60), 25, options={"g": "10", "preset": "medium", "bf": "2"})
    content = path.read_bytes()
    packets = len(content) // 188
    path.write_bytes(content[packets // 4 * 188 : packets * 9 // 10 * 188 + 77])
    shown = numbers(read(path))
    assert len(shown) > 20
    assert len(read_timeline(path).ticks) == len(shown)
    assert shown[:20] == list(range(shown[0], shown[0] + 20))


@pytest.mark.long
@pytest.mark.parametrize("suffix", ["mkv", "avi", "ts", "h264"])
@pytest.mark.parametrize("part", [0.75, 0.9])
def test_a_recording_that_was_interrupted_is_as_long_as_it_is(suffix: str, part: float, tmp_path: Path) -> None:
    path = save(
        tmp_path / f"a.{suffix}", numbered(40, 192, 256), 25, options={"g": "12", "preset": "medium", "bf": "2"}
    )
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    shown = numbers(read(path))
    assert 4 < len(shown) < 40
    assert shown[:-3] == list(range(len(shown) - 3))  # the last ones may lack a part


def test_frames_that_change_their_shape_are_refused(tmp_path: Path) -> None:
    """Two films of other shapes, one after the other."""
    for name, width in (("a.ts", 64), ("b.ts", 96)):
        save(tmp_path / name, numbered(8, 48, width), 25, codec="mpeg2video", options={"g": "4"})
    path = tmp_path / "both.ts"
    path.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    with pytest.raises(ToolkitError, match=r"both.ts: its frames change from 64 x 48 to 96 x 48"):
        read(path)
    assert len(plain(path)) == len(read_timeline(path).ticks)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def playlist(path: Path) -> None:
    save(path.with_name("other.mp4"), numbered(12))
    path.write_text("ffconcat version 1.0\nfile other.mp4\nfile other.mp4\n")


def table(path: Path) -> None:
    """Of so many samples of one byte that FFmpeg would make room for gigabytes."""
    content = save(path, numbered(12)).read_bytes()
    at = content.index(b"stsz") + 8
    path.write_bytes(content[:at] + (1).to_bytes(4) + (170_000_000).to_bytes(4) + content[at + 8 :])


def fragment(path: Path) -> None:
    """Of as many, of which nothing but their number is stated."""
    with av.open(str(path), "w", options={"movflags": "frag_keyframe+empty_moov"}) as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for pixels in numbered(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    content = path.read_bytes()
    at = content.index(b"trun") + 8
    path.write_bytes(content[:at] + (170_000_000).to_bytes(4) + content[at + 4 :])


def giant_gif(path: Path) -> None:
    content = save(path, numbered(3), codec="gif", pix_fmt="rgb8").read_bytes()
    path.write_bytes(content[:6] + b"\xff\xff\xff\xff" + content[10:])


def giant_y4m(path: Path) -> None:
    path.write_bytes(b"YUV4MPEG2 W65535 H65535 F25:1 C420\nFRAME\n" + bytes(1000))


HURTFUL: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a named pipe": ("x.mp4", pipe, "it is no file"),
    "a playlist": ("x.mp4", playlist, "cannot be read as video"),
    "a table of 170 million samples": ("x.mp4", table, "cut short, it states 170000000 samples"),
    "a fragment of 170 million samples": ("x.mp4", fragment, "cut short, it states 170000000 samples"),
    "a GIF of 65535 x 65535": ("x.gif", giant_gif, ""),
    "frames of 65535 x 65535": ("x.y4m", giant_y4m, ""),
}


@pytest.mark.parametrize("hurt", HURTFUL)
def test_what_is_made_to_hurt_is_refused(hurt: str, tmp_path: Path) -> None:
    name, spoil, why = HURTFUL[hurt]
    spoil(tmp_path / name)
    with pytest.raises(ToolkitError, match=name) as caught:
        read_timeline(tmp_path / name)
    assert why in str(caught.value)
    assert len(str(caught.value).removeprefix(str(tmp_path))) < 200


def test_what_is_made_to_hurt_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i in range(4):
        save(tmp_path / f"{i}.mp4", numbered(12, first=20 * i))
    for i, (name, spoil, _) in enumerate(HURTFUL.values()):
        (tmp_path / f"{i}").mkdir()
        spoil(tmp_path / f"{i}" / name)
    dataset = FolderDataset(root=str(tmp_path), frames=4, size=16, on_error="skip", rate=10)
    assert f"{len(HURTFUL)} files skipped so far" in caplog.text
    assert dataset.size("train")


@pytest.mark.parametrize("error", [AttributeError("channels"), ValueError("no"), MemoryError(), OverflowError("big")])
def test_whatever_one_file_raises_is_its_fault(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(4):
        save(tmp_path / f"{i}.mp4", numbered(12, first=20 * i))
    healthy = frames.decoded

    def spoiled(packets: object) -> object:
        raise error

    timeline = read_timeline(tmp_path / "0.mp4")
    monkeypatch.setattr("toolkit_video.reading.decoded", spoiled)
    for act in (lambda path: read_timeline(path), lambda path: read_frames(path, timeline, [1], 3)):
        with pytest.raises(ToolkitError, match=rf"0.mp4: cannot be read as video \({str(error) or 'MemoryError'}\)"):
            act(tmp_path / "0.mp4")
    monkeypatch.setattr("toolkit_video.reading.decoded", healthy)


@pytest.mark.parametrize("rows", [10**12, 10**9])
def test_actions_that_announce_more_than_there_is(rows: int, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 3)))
    content = path.read_bytes()
    shape = f"({rows}, 3)"
    path.write_bytes(content.replace(b"(2, 3), }" + b" " * (len(shape) - len("(2, 3)")), f"{shape}, }}".encode()))
    assert shape.encode() in path.read_bytes()
    for act in (read_numbers, read_labels):
        with pytest.raises(ToolkitError, match=r"a.npy: cannot be read as an array"):
            act(path)


def test_actions_of_a_size_that_no_recording_has(tmp_path: Path) -> None:
    for name in ("a.csv", "a.npy"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(1 << 40)  # which takes no room
        with pytest.raises(ToolkitError, match=rf"{name}: 1099511627776 bytes; actions of a recording take"):
            read_numbers(tmp_path / name)
