"""A user's own videos, in folders."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from toolkit import Condition, DataSpec
from toolkit.dataset import SourceFile
from toolkit.datasets.files import find_files
from toolkit.datasets.variance import estimate_variance
from toolkit.proposal import Proposal
from toolkit.ranges import NonNegativeInt, Positive, PositiveInt
from toolkit_video.classes import class_of
from toolkit_video.clips import VARYING, ClipDataset
from toolkit_video.corpus import SAMPLE, SUFFIXES, Corpus
from toolkit_video.proposing import propose


@final
class FolderDataset(ClipDataset):
    """All videos below ``root``, in any format that FFmpeg decodes, in windows of some frames.

    ``root`` contains ``train/ val/ test/``, or videos only. A missing ``val/`` or ``test/`` is held out from the other
    videos, 5 % each, by a hash of a video's path, so that it stays in its split when others are added or removed. A
    file has as many evenly spaced windows as cover it. Names that start with a dot are ignored.

    Args:
        root: the folder.
        frames: in a window.
        rate: frames per second; files with more frames, or irregular ones, are sampled at these times; null: that of
            the files, which must agree.
        size: height and width of a frame in pixels; frames are shrunk, then cropped.
        channels: 3 for color, 1 for gray.
        start: random: a training window is anywhere in its file; fixed: at the file's evenly spaced windows.
        crop: whether a training window is in the middle of the picture, or anywhere.
        labels: a video's class: folder: the first folder below root or split; file: the file's name, without suffix
            and trailing number; none: no classes. Without folders there are no classes by folder.
        memory: megabytes of shrunk frames that a loading process caches to avoid decoding them again; 0: no cache.
        on_error: whether a file that cannot be used stops the run, or is skipped with a warning.
    """

    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES

    def __init__(
        self,
        *,
        root: str,
        frames: PositiveInt = 16,
        rate: Positive | None = None,
        size: PositiveInt = 64,
        channels: PositiveInt = 3,
        start: Literal["random", "fixed"] = "random",
        crop: Literal["center", "random"] = "center",
        labels: Literal["folder", "file", "none"] = "folder",
        memory: NonNegativeInt = 256,
        on_error: Literal["skip", "stop"] = "stop",
    ) -> None:
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
        self.labels = labels
        names = {class_of(path, labels) for path in self.corpus.timelines} - {""}
        self.classes = {name: i for i, name in enumerate(sorted(names, key=os.fsencode))}
        conditions = (Condition("class", len(self.classes), tuple(self.classes)),) if self.classes else ()
        self.spec = DataSpec(
            channels,
            self.corpus.axes,
            levels=256,
            varying=VARYING,
            rates=(self.corpus.rate, None, None),
            conditions=conditions,
        )
        self.corpus.log()
        self.spec = replace(self.spec, variance=estimate_variance(self, SAMPLE))

    @classmethod
    def propose(cls, root: Path) -> Proposal | None:
        return propose(root) if find_files(root, SUFFIXES) else None

    def size(self, split: str) -> int:
        return self.corpus.size(split)

    def example_name(self, split: str, index: int) -> str:
        return self.corpus.window_name(split, index)

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        """``x`` (channels, frames, size, size) uint8 and, with classes, the label ``class``."""
        path, _, x = self.corpus.window(split, index, generator)
        if not self.classes:
            return {"x": x}
        # a video outside a class folder has no known class: index "size"
        return {"x": x, "class": torch.tensor(self.classes.get(class_of(path, self.labels), len(self.classes)))}

    def source_files(self) -> Iterable[SourceFile]:
        return self.corpus.source_files(lambda path: class_of(path, self.labels))
