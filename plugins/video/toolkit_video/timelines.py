"""Timelines of many files, cached from one start to the next."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.datasets.files import scan
from toolkit_video.reading import Timeline, read_timeline


def scan_timelines(root: Path, paths: list[str]) -> tuple[dict[str, Timeline], dict[str, str]]:
    """The timelines of files below root, by path, and by path the reason for those that cannot be read."""
    return scan(root, paths, _look, _unpacked, package="discrete-toolkit-video", purpose="frames shown")


def _look(path: Path) -> list[Any]:
    """A timeline as plain JSON; the steps between the frames are shorter than the ticks."""
    base, rate, ticks, keys, counted, checks = read_timeline(path)
    plain = [np.diff(ticks).tolist(), keys.tolist(), counted, checks.tolist()]
    return [base.numerator, base.denominator, rate, int(ticks[0]), *plain]


def _unpacked(answer: list[Any]) -> Timeline:
    numerator, denominator, rate, first, steps, keys, counted, checks = answer
    ticks = np.cumsum(np.array([first, *steps], np.int64))
    places, expected = np.array(keys, np.int64), np.array(checks, np.int64)
    return Timeline(Fraction(numerator, denominator), rate, ticks, places, counted, expected)
