"""Real clips of every codec: all their frames, in the colors that another program sees."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ffmpeg_program import accurate, ffmpeg
from real_clips import VIDEO

from toolkit_video.reading import read_frames, read_timeline

MANIFEST = VIDEO / "manifest.csv"


def listed() -> Iterator[dict[str, str]]:
    if MANIFEST.is_file():
        with MANIFEST.open(newline="") as file:
            yield from csv.DictReader(file)


ROWS = {row["path"]: row for row in listed()}


def test_the_manifest_is_there(clips: Path) -> None:
    assert len(ROWS) == 40
    assert {row["codec"] for row in ROWS.values()} == {"h264", "hevc", "libdav1d", "mpeg1video"}


@pytest.mark.few(5)
@pytest.mark.parametrize("path", ROWS)
def test_all_frames_of_a_clip_are_there(path: str, clips: Path) -> None:
    row = ROWS[path]
    timeline = read_timeline(clips / path)
    assert len(timeline.ticks) == int(row["frames"])
    assert timeline.rate == pytest.approx(float(row["fps"]), rel=1e-3)
    shown = timeline.frames(timeline.rate).tolist()
    assert sorted(set(shown)) == list(range(int(row["frames"])))
    assert len(shown) <= int(row["frames"]) + 1  # one clip begins with a frame that lasts as long as two
    frames = read_frames(clips / path, timeline, range(int(row["frames"])), 1, (8, 8))
    assert (len(frames), min(frames.shape[1:3]), frames.shape[3]) == (int(row["frames"]), 8, 1)


@pytest.mark.few(2)
@pytest.mark.parametrize("path", ROWS)
def test_colors_are_those_of_ffmpeg(path: str, clips: Path) -> None:
    """The first frame, one of the middle and the last, each pixel to 2 levels."""
    n = int(ROWS[path]["frames"])
    numbers = [0, n // 2, n - 1]
    read = read_frames(clips / path, read_timeline(clips / path), numbers, 3)
    assert read.shape == (3, int(ROWS[path]["h"]), int(ROWS[path]["w"]), 3)
    chosen = "+".join(f"eq(n\\,{number})" for number in numbers)
    filters = f"select='{chosen}',{accurate(clips / path)}"
    theirs = ffmpeg(clips / path, "-vf", filters, "-vsync", "0", shape=read.shape)
    assert np.abs(read.astype(int) - theirs).max() <= 2
