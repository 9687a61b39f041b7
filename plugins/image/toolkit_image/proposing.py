"""An experiment for a folder of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from toolkit import ToolkitError
from toolkit.datasets.files import find_files, require_train, scan, split_folders
from toolkit.proposal import Choice, Proposal, counted, passes, sampling, some, spread, training, unread
from toolkit_image.decoding import decode, suffixes
from toolkit_image.layout import check_classes, class_folder, scan_sizes

STRIDES = {64: [2, 2], 32: [2, 2], 16: [2, 2], 8: [2]}
"""Sides that may be proposed, the largest for a CPU, and strides to a grid of 16 x 16 codes or fewer."""
LARGE_ENOUGH = 0.95
"""Share of the images that are at least as large as what is proposed."""
DECODED = 200
"""Images that are decoded, to see what no header says."""
FEW, RARE = 200, 20
"""Images below which a model, or a class, is learned by heart."""
DIM = 32


class Seen(NamedTuple):
    """A folder's images."""

    sizes: dict[str, tuple[int, int]]
    """Width and height, by path."""
    failures: dict[str, str]
    """Why a file is no image, by path."""
    gray: bool
    """Whether all that were decoded are gray."""
    labels: str
    """The option: folder or none."""
    classes: Counter[str]
    """Images by class."""
    loose: str
    """Why there are no classes though there are folders; empty otherwise."""


def propose(root: Path) -> Proposal | None:
    """As of ``Dataset.propose``."""
    if not find_files(root, suffixes()):
        return None
    seen = _look(root)
    if not seen.sizes:
        raise ToolkitError(f"{root}: {unread(seen.failures, root)}; no image is left")
    side, small = _side(root, seen.sizes)
    return Proposal(_contents(seen), len(seen.sizes), _choices(root, seen, side), _faults(root, seen, side, small))


def _look(root: Path) -> Seen:
    splits = split_folders(root)
    if splits:
        require_train(root, splits)
    paths = find_files(root, suffixes(), within=splits.values() if splits else None)
    sizes, failures = scan_sizes(root, paths)
    grays, broken = scan(
        root, spread([*sizes], DECODED), _is_gray, bool, package="discrete-toolkit-image", purpose="gray"
    )
    usable = {path: size for path, size in sizes.items() if path not in broken}
    loose = _loose(root, splits, paths)
    classes: Counter[str] = Counter() if loose else Counter(filter(None, map(class_folder, usable)))
    gray = bool(grays) and all(grays.values())
    return Seen(usable, failures | broken, gray, "none" if loose else "folder", classes, loose)


def _is_gray(path: Path) -> bool:
    pixels = np.asarray(decode(path, "RGB", 64))
    return bool((pixels == pixels[..., :1]).all())


def _loose(root: Path, splits: Mapping[str, str], paths: Sequence[str]) -> str:
    """Why folders cannot be classes; empty where they can, or there are none."""
    try:
        for split in [f"{name}/" for name in splits.values()] or [""]:
            check_classes(root, split, [path for path in paths if path.startswith(split)])
    except ToolkitError as error:
        return str(error)
    return ""


def _side(root: Path, sizes: Mapping[str, tuple[int, int]]) -> tuple[int, list[str]]:
    """The side that most images have, and the images that do not."""
    shorter = sorted(map(min, sizes.values()))
    most = shorter[int((1 - LARGE_ENOUGH) * len(shorter))]
    side = next((side for side in STRIDES if side <= most), None)
    if side is None:
        raise ToolkitError(f"{root}: its images are too small, most are less than {min(STRIDES)} pixels wide or high")
    return side, [path for path, size in sizes.items() if min(size) < side]


def _choices(root: Path, seen: Seen, side: int) -> tuple[Choice, ...]:
    channels, strides = 1 if seen.gray else 3, STRIDES[side]
    grid, dims = side // 2 ** len(strides), side * side * channels
    batch, count = 32, len(seen.sizes)
    steps, prior_steps = passes(count, batch), passes(count, 16)
    return (
        Choice("dataset", "image_folder", f"{count:,} images"),
        Choice("encoder", "image_conv", "convolutions: as good on few images as on many"),
        Choice("quantizer", "ema", "a codebook of moving averages, which learns fast"),
        Choice("decoder", "image_conv", "the encoder's mirror image"),
        Choice("likelihood", "normal", "squared error; logistic gives bits per dim, and takes longer"),
        Choice("prior", "pixelcnn", "learns fast on few images; transformer sees further, on many"),
        Choice("dim", DIM, "channels of a latent"),
        *sampling("class", seen.classes, "class"),
        Choice("dataset.root", str(root), ""),
        Choice("dataset.size", side, _why_side(seen, side)),
        Choice("dataset.channels", channels, "all images are gray" if seen.gray else "color"),
        Choice("dataset.labels", seen.labels, _why_labels(seen)),
        Choice("dataset.on_error", "skip", "what cannot be read is named and left out; stop ends the training there"),
        Choice("encoder.hidden", 64, "for a CPU; 128 on a GPU"),
        Choice("encoder.residual_hidden", 32, "half of it"),
        Choice(
            "encoder.strides",
            strides,
            f"{side} x {side} pixels to {grid} x {grid} codes; one 2 less: sharper, 4 times the codes",
        ),
        Choice("decoder.hidden", 64, "as the encoder"),
        Choice("decoder.residual_hidden", 32, ""),
        Choice("decoder.strides", strides, "as the encoder"),
        Choice(
            "quantizer.codebook_size",
            512,
            f"9 bits a code, {9 * grid * grid:,} bits an image; more entries need more images",
        ),
        Choice("quantizer.commitment", 0.25 * dims / 2 / DIM, "beta 0.25 of means over dims: 0.25 x (dims / 2) / dim"),
        Choice("quantizer.dead_code_threshold", 0.1, "unused entries are revived"),
        *training(
            "trainer",
            steps,
            batch,
            1.0e-3,
            f"about {steps * batch // count:,} passes over the images",
            examples=256,
            pictures=10,
        ),
        Choice("prior.hidden", 64, "for a CPU; 128 on a GPU"),
        Choice("prior.layers", 8, "with which a code sees 8 positions around it"),
        Choice("prior.kernel_size", 3, "faster than 5"),
        *training(
            "prior_trainer", prior_steps, 16, 1.0e-3, "it stops helping where val rises", examples=256, pictures=10
        ),
    )


def _why_side(seen: Seen, side: int) -> str:
    smallest, largest = min(map(min, seen.sizes.values())), max(map(min, seen.sizes.values()))
    shorter = f"{smallest}" if smallest == largest else f"{smallest} to {largest}"
    more = f"; on a GPU {2 * side} with strides {[2, *STRIDES[side]]}" if largest >= 2 * side else ""
    return f"for a CPU; shorter sides are {shorter} pixels{more}"


def _why_labels(seen: Seen) -> str:
    if seen.loose:
        return "there are images outside class folders, or class folders without images"
    return f"{len(seen.classes):,} folders are the classes" if seen.classes else "no folders, no classes"


def _contents(seen: Seen) -> str:
    sizes = Counter(seen.sizes.values())
    (width, height), _ = sizes.most_common(1)[0]
    one = f"{width} x {height}" if len(sizes) == 1 else f"{len(sizes):,} sizes, most often {width} x {height}"
    classes = f", {counted(len(seen.classes), 'class')}" if seen.classes else ""
    return f"{counted(len(seen.sizes), 'image')}{' in gray' if seen.gray else ''} of {one}{classes}"


def _faults(root: Path, seen: Seen, side: int, small: list[str]) -> tuple[str, ...]:
    faults = []
    if seen.failures:
        faults.append(unread(seen.failures, root))
    if small:
        faults.append(f"{counted(len(small), 'image')} will be skipped, smaller than {side} pixels: {some(small)}")
    if seen.loose:
        faults.append(f"no classes: {seen.loose}")
    rare = sorted(name for name, count in seen.classes.items() if count < RARE)
    if rare and len(seen.classes) > 1:
        faults.append(f"{counted(len(rare), 'class')} with fewer than {RARE} images: {some(rare)}")
    if len(seen.sizes) < FEW:
        images = counted(len(seen.sizes), "image")
        faults.append(f"only {images}: a model learns them by heart; look at val, not at train")
    return tuple(faults)
