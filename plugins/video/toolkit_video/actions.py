"""Recordings with actions: of a robot, a player, an agent."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor

from toolkit import Condition, DataSpec, ToolkitError
from toolkit.dataset import SourceFile
from toolkit.datasets.variance import estimate_variance
from toolkit.ranges import NonNegativeInt, Positive, PositiveInt
from toolkit_video.clips import VARYING, ClipDataset
from toolkit_video.corpus import SAMPLE, Corpus

SUFFIXES = (".csv", ".txt", ".npy")
"""Of files with actions."""
LARGEST = 1 << 28
"""Bytes of a file with actions."""
NAMES = "actions.txt"
"""Beside the recordings: the names of all actions, one per line, in the order of their labels."""


@final
class ActionsDataset(ClipDataset):
    """Videos with an action for every frame, in windows of some frames.

    Beside each video below ``root`` is a file of the same name with its actions, frame by frame: ``.csv`` or ``.txt``
    with a line per frame, or ``.npy`` with a row per frame. A frame's action is the one that led to it (``lag=0``), or
    the one that is taken when it is seen (``lag=1``); a frame that no action led to has the label "none", or zeros.
    ``root/actions.txt`` may list all actions, one per line; without it they are those that occur.

    Splits, windows and options are those of ``video_folder``.

    Args:
        root: the folder.
        actions: names: one word for each frame; numbers: as many numbers for each frame as there are columns.
        lag: frames from the one that an action is written beside to the one that it leads to.
        frames: in a window.
        rate: frames per second; frames are left out together with their actions; null: that of the files, which must
            agree.
        size: height and width of a frame in pixels; frames are shrunk, then cropped.
        channels: 3 for color, 1 for gray.
        start: random: a training window is anywhere in its file; fixed: at the file's evenly spaced windows.
        crop: whether a training window is in the middle of the picture, or anywhere.
        memory: megabytes of shrunk frames that a loading process caches to avoid decoding them again; 0: no cache.
        on_error: whether a file that cannot be used stops the run, or is skipped with a warning.
    """

    def __init__(
        self,
        *,
        root: str,
        actions: Literal["names", "numbers"] = "names",
        lag: NonNegativeInt = 0,
        frames: PositiveInt = 16,
        rate: Positive | None = None,
        size: PositiveInt = 64,
        channels: PositiveInt = 3,
        start: Literal["random", "fixed"] = "random",
        crop: Literal["center", "random"] = "center",
        memory: NonNegativeInt = 256,
        on_error: Literal["skip", "stop"] = "stop",
    ) -> None:
        if lag < 0:
            raise ValueError(f"lag={lag}: at least 0, as an action leads to no frame before it")
        self.corpus = Corpus(
            root,
            frames=frames,
            rate=rate,
            size=size,
            channels=channels,
            start=start,
            crop=crop,
            memory=memory,
            on_error=on_error,
        )
        if actions == "names":
            action, self.actions = self._named(lag)
        else:
            action, self.actions = self._numbered(lag)
        self.corpus.arrange()
        self.spec = DataSpec(
            channels,
            self.corpus.axes,
            levels=256,
            varying=VARYING,
            rates=(self.corpus.rate, None, None),
            conditions=(action,),
        )
        self.corpus.log()
        self.spec = replace(self.spec, variance=estimate_variance(self, SAMPLE))

    def size(self, split: str) -> int:
        return self.corpus.size(split)

    def example_name(self, split: str, index: int) -> str:
        return self.corpus.window_name(split, index)

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        """``x`` (channels, frames, size, size) uint8 and ``action``, (frames,) int64 or (frames, columns) float."""
        path, numbers, x = self.corpus.window(split, index, generator)
        return {"x": x, "action": torch.from_numpy(self.actions[path][numbers])}

    def source_files(self) -> Iterable[SourceFile]:
        """Videos, the files with their actions, and the names of the actions."""
        for file in self.corpus.source_files():
            yield file
            beside = self._beside(file.name)
            yield SourceFile(beside.relative_to(self.corpus.root).as_posix(), str(beside), file.split)
        if (names := self.corpus.root / NAMES).is_file():
            yield SourceFile(NAMES, str(names))

    def _named(self, lag: int) -> tuple[Condition, dict[str, np.ndarray]]:
        """The condition, and by path the label of every frame."""
        file = self.corpus.root / NAMES
        known = read_names(file) if file.is_file() else None
        written = self.corpus.keep(lambda path: self._lines(path, known))
        names = known or sorted({name for lines in written.values() for name in lines}, key=_in_order)
        index = {name: i for i, name in enumerate(names)}
        rows = {path: np.array([index[name] for name in lines], np.int64) for path, lines in written.items()}
        labels = self.corpus.keep(lambda path: self._led(path, rows[path], lag, len(names)))
        return Condition("action", len(names), tuple(names), per_step=True), labels

    def _numbered(self, lag: int) -> tuple[Condition, dict[str, np.ndarray]]:
        """The condition, and by path the numbers of every frame."""
        rows = self.corpus.keep(lambda path: read_numbers(self._beside(path)))
        if not rows:
            raise ToolkitError(f"{self.corpus.root}: no video has actions that can be read")
        columns = next(iter(rows.values())).shape[1]
        values = self.corpus.keep(
            lambda path: self._led(path, _as_wide(self._beside(path), rows[path], columns), lag, 0)
        )
        return Condition("action", columns, per_step=True, real=True), values

    def _lines(self, path: str, known: list[str] | None) -> list[str]:
        file = self._beside(path)
        lines = read_labels(file)
        for number, name in enumerate(lines, 1):
            if known is not None and name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f", did you mean {near[0]}?" if near else ""
                raise ToolkitError(f"{file}: no action {name} (number {number}){hint} ({NAMES}: {_few(known)})")
        return lines

    def _beside(self, path: str) -> Path:
        """The file with a video's actions."""
        video = self.corpus.root / path
        for suffix in SUFFIXES:
            if video.with_suffix(suffix).is_file() and video.with_suffix(suffix).name != NAMES:
                return video.with_suffix(suffix)
        raise ToolkitError(f"{video}: no actions beside it, no {video.stem}{' or '.join(SUFFIXES)}")

    def _led(self, path: str, rows: np.ndarray, lag: int, none: int) -> np.ndarray:
        """The action that led to each frame; ToolkitError if there are too many or too few."""
        frames = len(self.corpus.timelines[path].ticks)
        if len(rows) not in (frames, frames - lag):
            raise ToolkitError(
                f"{self._beside(path)}: {len(rows)} actions, but {path} has {frames} frames; one for each is needed"
            )
        before = np.full((min(lag, frames), *rows.shape[1:]), none, rows.dtype)
        return np.concatenate([before, rows])[:frames]


def read_names(path: Path) -> list[str]:
    """The names in a file, one per line."""
    names = _lines_of(path)
    if not names or len(set(names)) < len(names):
        raise ToolkitError(f"{path}: must name every action once, one per line")
    return names


def read_labels(path: Path) -> list[str]:
    """An action's name or number for every frame; a first line ``action`` is a heading."""
    if path.suffix != ".npy":
        lines = _lines_of(path)
        return lines[1:] if lines[:1] == ["action"] else lines
    rows = _array(path)
    if rows.ndim != 1 or rows.dtype.kind not in "iuU":
        raise ToolkitError(f"{path}: {rows.dtype} of shape {rows.shape}; names are one whole number or text per frame")
    return [str(row) for row in rows.tolist()]


def read_numbers(path: Path) -> np.ndarray:
    """Numbers ``(frames, columns)``, float32; a first line of words is a heading."""
    if path.suffix == ".npy":
        rows = _array(path)
        rows = rows[:, None] if rows.ndim == 1 else rows
        if rows.ndim != 2 or rows.dtype.kind not in "iuf":
            raise ToolkitError(f"{path}: {rows.dtype} of shape {rows.shape}; rows of numbers are needed, one per frame")
        numbers = rows.astype(np.float32)
    else:
        lines = [re.split(r"[,;\s]+", line) for line in _lines_of(path)]
        lines = lines[1:] if lines and not any(map(_is_number, lines[0])) else lines
        for number, line in enumerate(lines, 1):
            if not all(map(_is_number, line)):
                raise ToolkitError(f"{path}: action {number} is {','.join(line)[:40]}, not numbers")
            if len(line) != len(lines[0]):
                raise ToolkitError(f"{path}: action {number} has {len(line)} numbers, the first {len(lines[0])}")
        numbers = np.array(lines, np.float32).reshape(len(lines), -1)
    if not np.isfinite(numbers).all():
        raise ToolkitError(f"{path}: an action is not finite")
    return numbers


def _as_wide(path: Path, rows: np.ndarray, columns: int) -> np.ndarray:
    if rows.shape[1] != columns:
        raise ToolkitError(f"{path}: {rows.shape[1]} numbers for each frame, other videos have {columns}")
    return rows


def _array(path: Path) -> np.ndarray:
    _require_file(path)
    try:
        rows: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)  # which has no room for what is not there
    except Exception as error:  # NumPy raises SyntaxError, TypeError, TokenError, … for what it finds in a header
        raise ToolkitError(f"{path}: cannot be read as an array ({error})") from error
    if not isinstance(rows, np.ndarray):
        raise ToolkitError(f"{path}: cannot be read as an array (it has several)")
    return np.array(rows)


def _require_file(path: Path) -> None:
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ToolkitError(f"{path}: cannot be read as actions (it is no file)")
    if path.exists() and path.stat().st_size > LARGEST:
        raise ToolkitError(f"{path}: {path.stat().st_size} bytes; actions of a recording take {LARGEST} at most")


def _lines_of(path: Path) -> list[str]:
    _require_file(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ToolkitError(f"{path}: cannot be read as text ({error})") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _is_number(text: str) -> bool:
    try:
        return isfinite(float(text))
    except ValueError:
        return False


def _in_order(name: str) -> tuple[int, str]:
    """Sorts numbers by value, before words by their letters."""
    return (int(name), "") if name.isdecimal() else (1 << 62, name)


def _few(names: list[str]) -> str:
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
