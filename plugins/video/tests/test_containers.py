"""One law over all kinds of video files: frames are those that FFmpeg shows, all of them or some."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ffmpeg_program import shown_by_ffmpeg
from made_clips import numbered, numbers, save
from video_containers import KINDS, N, edit, make, plain

from toolkit_video.pictures import Converter
from toolkit_video.reading import read_frames, read_timeline

QUICK = (
    *("H.264 with B-frames", "H.264 with B-frames cut in mp4", "H.264 with wide pixels in mkv", "H.264 in ts"),
    *("HEVC with open groups cut in mp4", "VP9 in webm", "VP8 with hidden frames", "MPEG-4 in avi", "MPEG-2 in mpg"),
    *("FFV1 in mkv", "GIF"),
)
"""Kinds in the default lane."""


def lanes() -> list[object]:
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in KINDS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("containers")


@pytest.mark.long
@pytest.mark.parametrize("name", lanes())
@pytest.mark.few(4)
def test_frames_are_those_that_are_shown(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVT_LOG", "1")  # an encoder that talks
    path, kind = make(folder, name), KINDS[name]
    shown = plain(path)
    convert = Converter(3, None, kind.aspect)
    whole = np.stack([convert(frame) for frame in shown])
    assert whole.shape[1:] == (96, round(128 * kind.aspect), 3)
    said = numbers(whole)
    assert said == list(range(said[0], said[0] + len(shown)))
    assert len(shown) == N or kind.cut
    timeline = read_timeline(path)
    assert len(timeline.ticks) == len(shown)
    assert (np.diff(timeline.ticks) > 0).all()
    if not timeline.counted:
        assert timeline.ticks.tolist() == [frame.pts for frame in shown]
    assert (read_frames(path, timeline, range(len(shown)), 3) == whole).all()
    for start in range(len(shown) - 3):
        assert (read_frames(path, timeline, range(start, start + 3), 3) == whole[start : start + 3]).all(), start
    for few in ([5], [3, 3, 4], [0, len(shown) - 1], [len(shown) - 2, 2]):
        assert (read_frames(path, timeline, few, 3) == whole[few]).all()


EDITS: dict[str, list[tuple[float, float | None]]] = {
    "of which the end is left out": [(0.8, 0.0)],
    "of which the middle is shown": [(0.6, 0.5)],
    "that begins late": [(0.5, None), (1.6, 0.0)],
    "of two parts": [(0.4, 0.0), (0.6, 0.9)],
    "shown twice": [(0.6, 0.3), (0.6, 0.3)],
    "of two parts, the later one first": [(0.6, 0.9), (0.6, 0.0)],
    "of three parts and a pause": [(0.2, 1.2), (0.2, None), (0.3, 0.1), (0.4, 0.7)],
}
SHOWN = {"of which the end is left out": range(20), "that begins late": range(N)}


@pytest.mark.parametrize("suffix", ["mp4", pytest.param("mov", marks=pytest.mark.slow)])
@pytest.mark.parametrize("edits", EDITS)
def test_an_edit_list_is_followed(edits: str, suffix: str, tmp_path: Path) -> None:
    path = save(tmp_path / f"a.{suffix}", numbered(N), 25, options={"preset": "medium", "bf": "3", "g": "12"})
    edit(path, EDITS[edits])
    convert = Converter(3, None)
    whole = np.stack([convert(frame) for frame in plain(path)])
    assert numbers(whole) == list(SHOWN.get(edits, numbers(whole)))
    assert len(whole) < N or edits in SHOWN
    timeline = read_timeline(path)
    assert len(timeline.ticks) == len(whole)
    for start in range(len(whole) - 3):
        assert (read_frames(path, timeline, range(start, start + 3), 3) == whole[start : start + 3]).all(), start


@pytest.mark.parametrize("name", lanes())
def test_there_are_as_many_frames_as_ffmpeg_shows(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVT_LOG", "1")
    path = make(folder, name)
    assert len(read_timeline(path).ticks) == shown_by_ffmpeg(path)
