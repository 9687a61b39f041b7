"""How a user's own images lie in folders: splits, classes, and what is refused."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from toolkit import ToolkitError
from toolkit.datasets.files import find_files, folder_split, require_train, scan, split_folders, visible
from toolkit_image.decoding import image_size, refuse_bombs, suffixes

COMMON = (".png", ".jpg", ".jpeg", ".webp")
"""Suffixes that are named where there are no images."""


def find_images(root: Path, labels: Literal["folder", "none"] = "folder") -> list[str]:
    """Paths below root, in its split folders or in itself; ToolkitError if there are none or the folders conflict."""
    splits = split_folders(root)
    if splits:
        require_train(root, splits)
    paths = find_files(root, suffixes(), within=splits.values() if splits else None)
    if labels == "folder":
        for split in [f"{name}/" for name in splits.values()] or [""]:
            check_classes(root, split, [path for path in paths if path.startswith(split)])
    if not paths:
        raise ToolkitError(f"{root}: no images ({', '.join(COMMON)}, …)")
    return paths


def check_classes(root: Path, split: str, paths: Sequence[str]) -> None:
    """ToolkitError unless all images of a split, ``""`` or ``train/``, are in class folders, or all in itself."""
    names = sorted(visible(os.listdir(root / split)))
    classes = [name for name in names if (root / split / name).is_dir()]
    filled = {path[len(split) :].partition("/")[0] for path in paths}
    loose = [path for path in paths if "/" not in path[len(split) :]]
    if classes and loose:
        raise ToolkitError(f"{root / loose[0]}: is beside class folders; move it into one of them")
    for name in classes:
        if name not in filled:
            raise ToolkitError(f"{root / split / name}: a class folder without images of its own; fill it or remove it")
    if not paths:
        raise ToolkitError(f"{root / split}: no images ({', '.join(COMMON)}, …)")


def class_names(paths: Iterable[str]) -> dict[str, int]:
    """Class folders, numbered in the order of their names' bytes; empty without class folders."""
    names = set(map(class_folder, paths)) - {""}
    return {name: index for index, name in enumerate(sorted(names, key=os.fsencode))}


def class_folder(path: str) -> str:
    """The first folder below the split; empty: none."""
    folder, slash, _ = below_split(path).partition("/")
    return folder if slash else ""


def below_split(path: str) -> str:
    return path.partition("/")[2] if folder_split(path) else path


def scan_sizes(root: Path, paths: Sequence[str]) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Width and height of every image by its header, by path, and the reason, by path, for those that are none."""
    with warnings.catch_warnings():  # applies to the whole process, and so to the scan's threads
        refuse_bombs()
        return scan(root, paths, image_size, _pair, package="discrete-toolkit-image")


def _pair(answer: list[int]) -> tuple[int, int]:
    width, height = answer
    return int(width), int(height)
