"""What datasets of video files share: windows of frames, and the treatment of files that cannot be read."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from toolkit import ToolkitError
from toolkit.dataset import SPLITS, SourceFile
from toolkit.datasets.files import (
    ErrorPolicy,
    find_files,
    folder_split,
    part_name,
    require_folder,
    require_train,
    set_aside,
    split_sizes,
    windows,
)
from toolkit_video.clips import to_clip, too_few
from toolkit_video.pictures import CENTER, FORMATS, crop
from toolkit_video.reading import read_frames
from toolkit_video.timelines import scan_timelines

logger = logging.getLogger(__name__)

SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m2v", ".ts", ".mts", ".m2ts"),
    *(".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".ogm", ".vob", ".m1v", ".mpe", ".divx", ".qt", ".dv"),
    *(".gif", ".apng", ".y4m", ".mjpeg", ".mjpg", ".h264", ".264", ".h265", ".265", ".hevc", ".ivf", ".obu", ".mxf"),
)
SAMPLE = 32
"""Windows that the variance is estimated from, at most."""
ALIKE = 0.01
"""Relative difference up to which the rates of files count as equal."""

T = TypeVar("T")


class Window(NamedTuple):
    """Frames of a file, one after another at the corpus's rate."""

    path: str
    numbers: np.ndarray
    """Which frames of the file they are."""
    x: Tensor
    """``(channels, frames, height, width)``, uint8."""


class Corpus:
    """Video files below a folder, by split, and windows of ``frames`` frames of them.

    A file has as many evenly spaced windows as cover it. With a generator, a window is anywhere in its file if
    ``start`` is random, and anywhere in the picture if ``crop`` is. Only the frames that a window needs are decoded,
    and cached, shrunk, up to ``memory`` megabytes.

    Raises ValueError if an option is invalid, ToolkitError if the folder has no video, or a file cannot be read and
    ``on_error`` is stop. With skip such files are reported and counted, and another window replaces a lost one.
    """

    def __init__(
        self,
        root: str,
        *,
        frames: int,
        rate: float | None,
        size: int,
        channels: int,
        start: Literal["random", "fixed"],
        crop: Literal["center", "random"],
        memory: int,
        on_error: Literal["skip", "stop"],
    ) -> None:
        _check_options(frames, rate, size, channels)
        self.root, self.start, self.crop = require_folder(root, "the videos are"), start, crop
        self.channels, self.axes = channels, (frames, size, size)
        self.kept: dict[str, dict[int, np.ndarray]] = {}
        self.room = memory << 20
        self.policy = ErrorPolicy(self.root, on_error)
        self.timelines, failures = scan_timelines(self.root, find_videos(self.root))
        self.policy.add(failures)
        self.rate = self._common_rate() if rate is None else float(rate)
        self.shown = self.keep(self._shown)
        self.arrange()

    def keep(self, look: Callable[[str], T]) -> dict[str, T]:
        """The result of ``look`` for each file that is not skipped; if it raises, the file is skipped."""
        return self.policy.keep(self.timelines, look)

    def arrange(self) -> None:
        """Computes the windows of the usable files."""
        usable = [path for path in self.timelines if path not in self.policy.skipped]
        self.splits = set_aside(usable, folder_split, str)
        self.windows = {split: self._windows(split) for split in SPLITS}
        if not self.size("train"):
            raise ToolkitError(f"{self.root}: too few videos that can be read to train on")

    def size(self, split: str) -> int:
        return len(self.windows[split])

    def window(self, split: str, index: int, generator: torch.Generator | None) -> Window:
        numbers, paths = self.windows[split], self.splits[split]
        return self.policy.example(
            split,
            index,
            len(numbers),
            lambda index: paths[numbers[index, 0]],
            lambda index: self._window(paths[numbers[index, 0]], int(numbers[index, 1]), generator),
        )

    def window_name(self, split: str, index: int) -> str:
        numbers, paths = self.windows[split], self.splits[split]
        place = self.policy.place(index, len(numbers), lambda place: paths[numbers[place, 0]])
        return part_name(paths[numbers[place, 0]], int(numbers[place, 1]))

    def source_files(self, label: Callable[[str], str] = lambda _: "") -> Iterable[SourceFile]:
        """``label`` gives a file's label."""
        for split, paths in self.splits.items():
            for path in paths:
                yield SourceFile(path, os.path.join(self.root, path), split, label(path))

    def _window(self, path: str, begin: int, generator: torch.Generator | None) -> Window:
        frames, *size = self.axes
        shown, centering = self.shown[path], CENTER
        if generator is not None and self.start == "random":
            begin = int(torch.randint(len(shown) - frames + 1, (), generator=generator))
        if generator is not None and self.crop == "random":
            across, down = torch.rand(2, generator=generator).tolist()
            centering = (across, down)
        numbers = shown[begin : begin + frames]
        return Window(path, numbers, to_clip(crop(self._frames(path, numbers), (size[0], size[1]), centering)))

    def _frames(self, path: str, numbers: np.ndarray) -> np.ndarray:
        """Frames of a file, shrunk; from the cache if it has all of them."""
        kept, wanted = self.kept.setdefault(path, {}), numbers.tolist()
        if all(number in kept for number in wanted):
            return np.stack([kept[number] for number in wanted])
        try:
            size = (self.axes[1], self.axes[2])
            read = read_frames(self.root / path, self.timelines[path], numbers, self.channels, size)
        except ValueError as error:
            raise ToolkitError(f"{self.root / path}: {error}; make dataset.size smaller") from error
        new = {number: frame for number, frame in zip(wanted, read, strict=True) if number not in kept}
        if len(new) * read[0].nbytes <= self.room:
            self.room -= len(new) * read[0].nbytes
            kept.update({number: frame.copy() for number, frame in new.items()})
        return read

    def log(self) -> None:
        sizes = split_sizes(self.splits)
        minutes = sum(len(self.shown[path]) for paths in self.splits.values() for path in paths) / self.rate / 60
        logger.info("%s: %.1f minutes at %g frames per second; videos: %s", self.root, minutes, self.rate, sizes)

    def _shown(self, path: str) -> np.ndarray:
        """The frames of a file at the corpus's rate."""
        shown, frames = self.timelines[path].frames(self.rate), self.axes[0]
        if len(shown) < frames:
            raise ToolkitError(
                f"{self.root / path}: {too_few(len(shown), self.rate)} a window (dataset.frames={frames})"
            )
        return shown

    def _common_rate(self) -> float:
        """The rate of the files, which must agree."""
        rates = {path: timeline.rate for path, timeline in self.timelines.items() if timeline.rate}
        if not rates:
            raise ToolkitError(f"{self.root}: no video has more than one frame")
        slow, fast = min(rates, key=rates.__getitem__), max(rates, key=rates.__getitem__)
        if rates[fast] - rates[slow] > ALIKE * rates[fast]:
            raise ToolkitError(
                f"{self.root}: {slow} has {rates[slow]:.4g} frames per second and {fast} {rates[fast]:.4g}; "
                "dataset.rate=NUMBER brings all to one rate"
            )
        return float(np.median(list(rates.values())))

    def _windows(self, split: str) -> np.ndarray:
        """File and first frame at the corpus's rate ``(n, 2)`` of every window."""
        return windows((len(self.shown[path]) for path in self.splits[split]), self.axes[0])


def find_videos(root: Path) -> list[str]:
    """Paths of all video files below a folder. ToolkitError if there is none, or no training split."""
    paths = find_files(root, SUFFIXES, beside=(".csv", ".npy"))  # beside a video these are its actions
    if not paths:
        raise ToolkitError(f"{root}: no video files ({', '.join(SUFFIXES[:6])}, …)")
    require_train(root, map(folder_split, paths))
    return paths


def _check_options(frames: int, rate: float | None, size: int, channels: int) -> None:
    if frames < 1:
        raise ValueError(f"frames={frames}: a window has at least one frame")
    if rate is not None and not 0 < rate <= 1000:
        raise ValueError(f"rate={rate}: more than 0 and at most 1000 frames per second, or null")
    if size < 1:
        raise ValueError(f"size={size}: a frame has at least one pixel")
    if channels not in FORMATS:
        raise ValueError(f"channels={channels}: 3 for color or 1 for gray")
