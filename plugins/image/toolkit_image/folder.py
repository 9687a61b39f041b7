"""A user's own images, in folders."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Literal, final

import torch
from torch import Tensor

from toolkit import Condition, DataSpec, ToolkitError
from toolkit.dataset import SourceFile
from toolkit.datasets.files import (
    ErrorPolicy,
    folder_split,
    log_once,
    require_folder,
    set_aside,
    split_sizes,
)
from toolkit.datasets.variance import estimate_variance
from toolkit.proposal import Proposal
from toolkit.ranges import PositiveInt
from toolkit_image.codecs import MODES
from toolkit_image.files import ImageDataset, read_image, too_small
from toolkit_image.layout import below_split, class_folder, class_names, find_images, scan_sizes
from toolkit_image.proposing import propose

logger = logging.getLogger(__name__)

SAMPLE = 128
"""Images that the variance is estimated from, at most."""
CENTER = (0.5, 0.5, 1.0)
"""The choice without a generator: the middle of both axes, not mirrored."""


@final
class FolderDataset(ImageDataset):
    """Images of all common formats, labeled by their folder.

    ``root`` contains ``train/ val/ test/`` (or ``Training``, ``valid``, ``dev`` and the like), or images only. A
    missing ``val/`` or ``test/`` is held out from the other images, 5 % each, by a hash of an image's path, so that an
    image stays in its split when others are added or removed; the log says so. The first folder below (``root/cat/…``,
    ``root/train/cat/…``) is the image's class; without such folders there are no labels. Linked folders are entered
    once. What is passed over, such as names that start with a dot and files with other suffixes, is counted in the log.

    An image is shrunk until its shorter side has ``size`` pixels, and cropped. Without a generator it is cropped in the
    middle, and not mirrored. Every file's header is read once, and cached in the user's cache folder.

    Args:
        root: the folder.
        size: side of an image, in pixels.
        channels: 3 for color, 1 for gray.
        crop: which part of a shrunk image: its middle, or a random one.
        flip: mirrors an image, left to right, half the time.
        labels: folder: an image's class is its first folder, and all images are in class folders, or none; none: no
            classes, and images anywhere.
        on_error: whether a file that cannot be used stops the run, or is skipped, named and counted.
    """

    def __init__(
        self,
        *,
        root: str,
        size: PositiveInt = 128,
        channels: PositiveInt = 3,
        crop: Literal["center", "random"] = "center",
        flip: bool = False,
        labels: Literal["folder", "none"] = "folder",
        on_error: Literal["skip", "stop"] = "stop",
    ) -> None:
        if size < 1:
            raise ValueError(f"size={size}: an image has at least one pixel")
        if channels not in MODES:
            raise ValueError(f"channels={channels}: 3 for color or 1 for gray")
        self.crop = crop
        self.flip = flip
        self.root = require_folder(root, "the images are")
        self.policy = ErrorPolicy(self.root, on_error)
        paths = find_images(self.root, labels)
        self.splits = self._split(self._usable(paths, size))
        self.classes = class_names(paths) if labels == "folder" else {}
        conditions = (Condition("class", len(self.classes), tuple(self.classes)),) if self.classes else ()
        self.spec = DataSpec(channels, (size, size), levels=256, conditions=conditions)
        self.spec = replace(self.spec, variance=estimate_variance(self, SAMPLE))

    @classmethod
    def propose(cls, root: Path) -> Proposal | None:
        return propose(root)

    def size(self, split: str) -> int:
        return len(self.splits[split])

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        """``x`` (channels, size, size) uint8 and, with class folders, the label ``class``."""
        paths = self.splits[split]
        return self.policy.example(
            split, index, len(paths), paths.__getitem__, lambda index: self._example(paths[index], generator)
        )

    def example_name(self, split: str, index: int) -> str:
        paths = self.splits[split]
        return paths[self.policy.place(index, len(paths), paths.__getitem__)]

    def source_files(self) -> Iterable[SourceFile]:
        for split, paths in self.splits.items():
            for path in paths:
                yield SourceFile(path, os.path.join(self.root, path), split, class_folder(path))

    def _example(self, path: str, generator: torch.Generator | None) -> dict[str, Tensor]:
        across, down, mirror = CENTER if generator is None else torch.rand(3, generator=generator).tolist()
        centering = (across, down) if self.crop == "random" else CENTER[:2]
        try:
            x = read_image(self.root / path, self.spec, centering)
        except ValueError as error:
            raise ToolkitError(self._refusal(path, error)) from error
        if self.flip and mirror < 0.5:
            x = x.flip(-1)
        if not self.classes:
            return {"x": x}
        # an image outside a class folder, in a split without any, has no known class: index "size"
        return {"x": x, "class": torch.tensor(self.classes.get(class_folder(path), len(self.classes)))}

    def _usable(self, paths: list[str], size: int) -> list[str]:
        """The images that are large enough, by their headers."""
        sizes, failures = scan_sizes(self.root, paths)
        for path, (width, height) in sizes.items():
            if min(width, height) < size:
                failures[path] = self._refusal(path, too_small((width, height), (size, size)))
        self.policy.add(failures)
        return [path for path in paths if path not in failures]

    def _refusal(self, path: str, why: object) -> str:
        return f"{self.root / path}: {why}; make dataset.size smaller or remove the image"

    def _split(self, paths: list[str]) -> dict[str, list[str]]:
        splits = set_aside(paths, folder_split, below_split, allotted_keys)
        if not splits["train"]:
            raise ToolkitError(f"{self.root}: too few images for a split; put them into train/, val/ and test/ by hand")
        missing = [split for split in ("val", "test") if split not in map(folder_split, paths)]
        origin = f"{' and '.join(missing)} set aside by a hash of the path" if missing else "split by folder"
        log_once(logger, f"{self.root}: {split_sizes(splits)} images, {origin}")
        return splits


def allotted(path: str) -> str:
    """The split of a path (without its split's folder), by a hash of its bytes: 90 % train, 5 % val, 5 % test."""
    percent = int.from_bytes(sha256(os.fsencode(path)).digest()) % 100
    return "train" if percent < 90 else "val" if percent < 95 else "test"


def allotted_keys(keys: set[str], split: str) -> set[str]:
    """The keys of a split; if there are few keys, it may be empty."""
    return {key for key in keys if allotted(key) == split}
