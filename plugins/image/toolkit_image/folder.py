"""A person's own images, in folders."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from math import ceil
from pathlib import Path
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor

from toolkit import Condition, DataSpec, ToolkitError
from toolkit.dataset import SPLITS
from toolkit_image.files import MODES, ImageDataset, read_image

logger = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
SAMPLE = 128
"""Images that the variance is estimated from, at most."""
CENTRE = (0.5, 0.5, 1.0)
"""What is chosen without a generator: the middle of both axes, and no mirror."""


class Split(NamedTuple):
    """Images by their paths below a folder, sorted by bytes."""

    folder: Path
    paths: list[str]


@final
class FolderDataset(ImageDataset):
    """PNG, JPEG and WebP files, labelled by the folder they lie in.

    ``root`` holds ``train/ val/ test/``, or images alone. What is missing of ``val/`` and ``test/`` is set
    aside from the rest, 5 % each, by a hash of an image's path, so that an image stays in its split when
    others come and go; the log says so. The first folder below (``root/cat/…``, ``root/train/cat/…``) is the
    image's class; without such folders there are no labels. Names that start with a dot are not seen.

    An image is shrunk until its shorter side has ``size`` pixels, and cropped. Without a generator it is cropped in the
    middle, and not mirrored.

    Args:
        root: the folder.
        size: side of an image, in pixels.
        channels: 3 for colour, 1 for grey.
        crop: which part of a shrunk image: its middle, or where the generator says.
        flip: mirrors an image, left to right, half the time.
    """

    def __init__(
        self,
        *,
        root: str,
        size: int = 128,
        channels: int = 3,
        crop: Literal["center", "random"] = "center",
        flip: bool = False,
    ) -> None:
        if size < 1:
            raise ValueError(f"size={size}: an image has at least one pixel")
        if channels not in MODES:
            raise ValueError(f"channels={channels}: 3 for color or 1 for grey")
        self.crop = crop
        self.flip = flip
        self.splits = find_splits(Path(root).expanduser())
        self.classes = class_names(self.splits.values())
        conditions = (Condition("class", len(self.classes), tuple(self.classes)),) if self.classes else ()
        self.spec = DataSpec(channels, (size, size), levels=256, conditions=conditions)
        self.spec = replace(self.spec, variance=estimated_variance(self))

    def size(self, split: str) -> int:
        return len(self.splits[split].paths)

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        """``x`` (channels, size, size) uint8 and, where there are class folders, the label ``class``."""
        folder, paths = self.splits[split]
        across, down, mirror = CENTRE if generator is None else torch.rand(3, generator=generator).tolist()
        centering = (across, down) if self.crop == "random" else CENTRE[:2]
        path = folder / paths[index]
        try:
            x = read_image(path, self.spec, centering)
        except ValueError as error:
            raise ToolkitError(f"{path}: {error}; make dataset.size smaller or take the image away") from error
        if self.flip and mirror < 0.5:
            x = x.flip(-1)
        return {"x": x, **self._label(paths[index])}

    def _label(self, path: str) -> dict[str, Tensor]:
        if not self.classes:
            return {}
        # an image in no class folder, in a split without any, is of no known class: index "size"
        return {"class": torch.tensor(self.classes.get(path.partition("/")[0], len(self.classes)))}


def estimated_variance(dataset: FolderDataset) -> float:
    """Of the scaled data, from 128 training images (or all, if fewer) at even distances."""
    n = dataset.size("train")
    sample = [dataset.example("train", i, None)["x"] for i in range(0, n, ceil(n / SAMPLE))]
    return float(dataset.spec.scale(torch.stack(sample)).double().var(correction=0))


def class_names(splits: Iterable[Split]) -> dict[str, int]:
    """Class folders, numbered in the order of their names' bytes; empty where no split has any."""
    names = {path.partition("/")[0] for split in splits for path in split.paths if "/" in path}
    return {name: index for index, name in enumerate(sorted(names, key=os.fsencode))}


def find_splits(root: Path) -> dict[str, Split]:
    """The images of each split; ToolkitError where there are none or folders contradict."""
    if not root.is_dir():
        raise ToolkitError(f"{root.absolute()}: no such folder; dataset.root=FOLDER says where the images are")
    own = {split: Split(root / split, find_images(root / split)) for split in SPLITS if (root / split).is_dir()}
    if own and "train" not in own:
        raise ToolkitError(f"{root}: there is {' and '.join(own)} but no train; add the folder {root / 'train'}")
    pool = own.pop("train", None) or Split(root, find_images(root))
    missing = [split for split in ("val", "test") if split not in own]
    splits = set_aside(pool, missing) | own
    if not splits["train"].paths:
        raise ToolkitError(f"{root}: too few images for a split; put them into train/, val/ and test/ by hand")
    _tell(root, pool.folder, missing, splits)
    return splits


def _tell(root: Path, pool: Path, missing: list[str], splits: dict[str, Split]) -> None:
    counts = ", ".join(f"{len(splits[split].paths)} {split}" for split in SPLITS)
    origin = f"{' and '.join(missing)} set aside by a hash of the path" if missing else "split by folder"
    logger.info("%s: %s images, %s", root, counts, origin)
    unread = [name for name in visible(os.listdir(root)) if name not in SPLITS and (root / name).is_dir()]
    if pool != root and unread:
        logger.warning("%s: not read, beside train: %s", root, ", ".join(sorted(unread)))


def set_aside(pool: Split, missing: Sequence[str]) -> dict[str, Split]:
    """The training images, and the missing splits taken from them."""
    paths: dict[str, list[str]] = {split: [] for split in ("train", *missing)}
    for path in pool.paths:
        split = allotted(path)
        paths[split if split in missing else "train"].append(path)
    return {split: Split(pool.folder, chosen) for split, chosen in paths.items()}


def allotted(path: str) -> str:
    """The split that a path falls into, by nothing but its own bytes: 90 % train, 5 % val, 5 % test."""
    percent = int.from_bytes(sha256(os.fsencode(path)).digest()) % 100
    return "train" if percent < 90 else "val" if percent < 95 else "test"


def find_images(folder: Path) -> list[str]:
    """Paths below a folder of all images in its class folders, or in itself where it has none."""
    names = sorted(visible(os.listdir(folder)))
    classes = [name for name in names if (folder / name).is_dir()]
    found = [name for name in names if is_image(name) and name not in classes]
    if classes and found:
        raise ToolkitError(f"{folder / found[0]}: lies beside class folders; move it into one of them")
    for name in classes:
        inside = [f"{name}/{path}" for path in walk(folder / name)]
        if not inside:
            raise ToolkitError(f"{folder / name}: a class folder without images; fill it or take it away")
        found += inside
    if not found:
        raise ToolkitError(f"{folder}: there is no PNG, JPEG or WebP image")
    return sorted(found, key=os.fsencode)


def walk(folder: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = visible(folders)
        below = Path(parent).relative_to(folder)
        yield from ((below / name).as_posix() for name in visible(names) if is_image(name))


def visible(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith(".")]


def is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)
