"""An experiment for a folder of videos, as video_gestures is one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from toolkit import ToolkitError
from toolkit.datasets.files import scan
from toolkit.proposal import Choice, Proposal, counted, passes, sampling, some, training, unread
from toolkit_video.classes import class_of
from toolkit_video.corpus import ALIKE, find_videos
from toolkit_video.frames import opened
from toolkit_video.reading import Timeline
from toolkit_video.timelines import scan_timelines

SIDES = (64, 32, 16)
"""Sides that may be proposed."""
STRIDES = {64: [[1, 2, 2], [2, 2, 2], [2, 2, 2]], 32: [[2, 2, 2], [2, 2, 2]], 16: [[2, 2, 2], [2, 1, 1]]}
"""To 8 x 8 codes, each of 4 frames."""
RATE = 10.0
"""Frames per second that show most movements."""
FRAMES = (16, 8, 4)
"""In an example."""
LONG_ENOUGH = 0.9
"""Share of the files that are as long, or as large, as what is proposed."""
FEW = 100
"""Videos below which a model learns them by heart."""
LEVELS = [8, 5, 5, 5]

Labels = Literal["folder", "file", "none"]


class Seen(NamedTuple):
    """A folder's videos."""

    timelines: dict[str, Timeline]
    sizes: dict[str, tuple[int, int]]
    failures: dict[str, str]
    labels: Labels
    classes: Counter[str]
    """Videos by class."""

    @property
    def seconds(self) -> list[float]:
        return [float(timeline.times[-1]) for timeline in self.timelines.values()]


class Window(NamedTuple):
    """What an example is cut as."""

    frames: int
    rate: float
    short: list[str]
    """Files that are shorter."""


def propose(root: Path) -> Proposal | None:
    """As of ``Dataset.propose``."""
    timelines, failures = scan_timelines(root, find_videos(root))
    stills = [path for path, timeline in timelines.items() if not timeline.rate]
    sizes, broken = scan(root, [*timelines], _size, _pair, package="discrete-toolkit-video", purpose="frame size")
    failures |= broken | {path: f"{root / path}: has a single frame" for path in stills}
    timelines = {path: timeline for path, timeline in timelines.items() if path not in failures}
    if not timelines:
        raise ToolkitError(f"{root}: {unread(failures, root)}; no video is left")
    labels = _labels([*timelines])
    classes = Counter(filter(None, (class_of(path, labels) for path in timelines)))
    seen = Seen(timelines, {path: sizes[path] for path in timelines}, failures, labels, classes)
    window, side = _window(timelines), _side(root, seen)
    return Proposal(
        _contents(seen), len(timelines), _choices(root, seen, window, side), _faults(root, seen, window, side)
    )


def _size(path: Path) -> list[int]:
    with opened(path) as (_, stream):
        return [stream.codec_context.width, stream.codec_context.height]


def _pair(answer: list[Any]) -> tuple[int, int]:
    width, height = answer
    return int(width), int(height)


def _labels(paths: list[str]) -> Labels:
    """Folders are classes; without them, file names that differ in a number alone."""
    if len({class_of(path, "folder") for path in paths} - {""}) > 1:
        return "folder"
    return "file" if 1 < len({class_of(path, "file") for path in paths}) <= len(paths) // 2 else "none"


def _window(timelines: Mapping[str, Timeline]) -> Window:
    """The longest window that most files have: of 16 to 4 frames, at 10 per second or at the files' own rate."""
    own = min(timeline.rate for timeline in timelines.values())
    windows = [Window(frames, rate, []) for rate in dict.fromkeys((min(RATE, own), own)) for frames in FRAMES]
    for window in windows:
        shown = {path: len(timeline.frames(window.rate)) for path, timeline in timelines.items()}
        short = [path for path, count in shown.items() if count < window.frames]
        if len(short) <= (1 - LONG_ENOUGH) * len(timelines):
            break
    return window._replace(short=short)


def _side(root: Path, seen: Seen) -> int:
    shorter = sorted(map(min, seen.sizes.values()))
    most = shorter[int((1 - LONG_ENOUGH) * len(shorter))]
    side = next((side for side in SIDES if side <= most), None)
    if side is None:
        raise ToolkitError(f"{root}: its videos are too small, most are less than {SIDES[-1]} pixels wide or high")
    return side


def _choices(root: Path, seen: Seen, window: Window, side: int) -> tuple[Choice, ...]:
    count, seconds, strides = len(seen.timelines), window.frames / window.rate, STRIDES[side]
    examples = int(sum(max(1.0, length / seconds) for length in seen.seconds))
    steps = passes(examples, 4)
    return (
        Choice("dataset", "video_folder", f"{count:,} videos"),
        Choice("encoder", "video_conv", "convolutions over time, height and width"),
        Choice("quantizer", "fsq", "a fixed lattice: nothing of it collapses on few videos"),
        Choice("decoder", "video_conv", "the encoder's mirror image"),
        Choice("likelihood", "normal", "squared error"),
        Choice("prior", "pixelcnn", "learns fast on few videos; transformer sees further, on many"),
        Choice("metric", ["reconstruction", "codebook", "video_quality"], "video_quality: error of motion"),
        *sampling("class", seen.classes, "class"),
        Choice("dataset.root", str(root), ""),
        Choice("dataset.labels", seen.labels, _why_labels(seen)),
        Choice("dataset.size", side, f"{_why_side(seen)}; half of it takes a quarter of the time"),
        Choice("dataset.frames", window.frames, f"{seconds:g} s; the films are {_range(seen.seconds)} s long"),
        Choice("dataset.rate", window.rate, _why_rate(seen)),
        Choice("dataset.on_error", "skip", "what cannot be read is named and left out; stop ends the training there"),
        Choice("encoder.hidden", 48, "for a CPU; 128 on a GPU"),
        Choice("encoder.causal", True, "a code depends on no later frame: samples can continue a film"),
        Choice("encoder.strides", strides, f"a code stands for 4 frames of {side // 8} x {side // 8} pixels"),
        Choice("decoder.hidden", 48, "as the encoder"),
        Choice("decoder.causal", True, ""),
        Choice("decoder.strides", strides[::-1], "the encoder's, backwards"),
        Choice("quantizer.levels", LEVELS, f"{int(np.prod(LEVELS)):,} codes, about 10 bits each"),
        *training(
            "trainer",
            steps,
            4,
            1.0e-3,
            f"about {steps * 4 // examples:,} passes over the films",
            examples=64,
            pictures=10,
        ),
        Choice("prior.hidden", 48, "for a CPU; 128 on a GPU"),
        Choice("prior.layers", 6, ""),
        Choice("prior.kernel_size", 3, "faster than 5"),
        Choice("prior.head", 128, ""),
        *training("prior_trainer", steps, 8, 2.0e-3, "it stops helping where val rises", examples=64, pictures=10),
    )


def _why_labels(seen: Seen) -> str:
    if seen.labels == "none":
        return "no folders, and no names that several files share: no classes"
    what = "folders" if seen.labels == "folder" else "names before the number"
    return f"{len(seen.classes):,} {what} are the classes"


def _why_side(seen: Seen) -> str:
    return f"the shorter sides are {_range([float(min(size)) for size in seen.sizes.values()])} pixels"


def _why_rate(seen: Seen) -> str:
    return f"the files have {_range([timeline.rate for timeline in seen.timelines.values()])}"


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.3g}" if high - low <= ALIKE * high else f"{low:.3g} to {high:.3g}"


def _contents(seen: Seen) -> str:
    (width, height), _ = Counter(seen.sizes.values()).most_common(1)[0]
    classes = f", {len(seen.classes):,} classes" if len(seen.classes) > 1 else ""
    seconds = f"{_range(seen.seconds)} s, {sum(seen.seconds) / 60:.1f} minutes"
    return f"{counted(len(seen.timelines), 'video')} of {seconds}, most often {width} x {height}{classes}"


def _faults(root: Path, seen: Seen, window: Window, side: int) -> tuple[str, ...]:
    faults = []
    if seen.failures:
        faults.append(unread(seen.failures, root))
    if window.short:
        what = f"{window.frames} frames at {window.rate:g} a second"
        faults.append(
            f"{counted(len(window.short), 'film')} will be skipped, shorter than {what}: {some(window.short)}"
        )
    small = [path for path, size in seen.sizes.items() if min(size) < side]
    if small:
        faults.append(f"{counted(len(small), 'film')} will be skipped, smaller than {side} pixels: {some(small)}")
    if len(seen.timelines) < FEW:
        videos = counted(len(seen.timelines), "video")
        faults.append(f"only {videos}: a model learns them by heart; look at val, not at train")
    return tuple(faults)
