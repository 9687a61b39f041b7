"""Procedural sprites that follow actions: a video dataset that needs no files."""

from __future__ import annotations

from math import cos, pi, sin, sqrt
from typing import Any, TypeAlias, final

import numpy as np
import torch
from torch import Tensor

from toolkit import Condition, DataSpec
from toolkit.dataset import SPLITS
from toolkit.ranges import PositiveInt
from toolkit_video.clips import VARYING, ClipDataset

Plane: TypeAlias = Any
"""A number at every pixel: an array ``(size, size)`` of float64."""
Picture: TypeAlias = Any
"""Red, green and blue at every pixel: an array ``(3, size, size)`` of float64 in [0, 1]."""

ACTIONS = {"stay": (0, 0), "left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
"""Steps down and to the right."""

COLORS = {
    "red": (0.90, 0.15, 0.15),
    "yellow": (0.95, 0.80, 0.10),
    "green": (0.10, 0.65, 0.25),
    "blue": (0.10, 0.30, 0.90),
}

RATE = 8.0
"""Frames per second."""
PLACES = 10
"""Positions of a sprite along each axis."""
KEPT = 0.75
"""Probability that an action is repeated at the next frame."""
VARIANCE = 0.0386
"""Of the training split, scaled to [-1, 1]; the size of the frames hardly matters."""


@final
class SpritesDataset(ClipDataset):
    """A colored disc or square that moves over a static gray background.

    Every frame has an ``action``, the one that led to it from the frame before: stay, left, right, up or down, by a
    twelfth of the picture; at the border the sprite stands still. Actions tend to repeat. An example is a function of
    its split and index, whatever the sizes of the splits; clips are the same at every ``size``, but for the resolution,
    and longer ones continue shorter ones.

    Args:
        size: height and width of a frame in pixels.
        frames: in a clip.
        train_size: clips of the training split.
        val_size: clips of the validation split.
        test_size: clips of the test split.
    """

    def __init__(
        self,
        *,
        size: PositiveInt = 24,
        frames: PositiveInt = 16,
        train_size: PositiveInt = 4_000,
        val_size: PositiveInt = 400,
        test_size: PositiveInt = 400,
    ) -> None:
        if size < 12:
            raise ValueError(f"size={size}: sprites need at least 12 pixels")
        if frames < 1:
            raise ValueError(f"frames={frames}: a clip needs at least one frame")
        self.sizes = dict(zip(SPLITS, (train_size, val_size, test_size), strict=True))
        for split, count in self.sizes.items():
            if count < 1:
                raise ValueError(f"{split}_size={count}: a split needs at least one example")
        self.spec = DataSpec(
            3,
            (frames, size, size),
            levels=256,
            varying=VARYING,
            rates=(RATE, None, None),
            variance=VARIANCE,
            conditions=(Condition("action", len(ACTIONS), tuple(ACTIONS), per_step=True),),
        )

    def size(self, split: str) -> int:
        return self.sizes[split]

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        """``x`` (3, frames, size, size) uint8, ``action`` (frames,); the generator is not used."""
        if not 0 <= index < self.sizes[split]:
            raise IndexError(f"{split} has {self.sizes[split]} examples, no index {index}")
        frames, size, _ = self.spec.axes
        numbers = np.random.default_rng((SPLITS.index(split), index))
        look, start, moves = numbers.random(8), numbers.integers(PLACES, size=2), numbers.random((frames, 2))
        actions = choose_actions(moves)
        clip = draw_clip(size, look, walk(start, actions))
        x = torch.from_numpy((clip * 255 + 0.5).astype(np.uint8))
        return {"x": x, "action": torch.from_numpy(actions)}


def choose_actions(moves: np.ndarray) -> np.ndarray:
    """Actions ``(frames,)`` from numbers ``(frames, 2)`` in [0, 1): whether each repeats, and the next one if not."""
    actions = (moves[:, 1] * len(ACTIONS)).astype(np.int64)
    for frame in range(1, len(actions)):
        if moves[frame, 0] < KEPT:
            actions[frame] = actions[frame - 1]
    return actions


def walk(start: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """A sprite's position at every frame, ``(frames, 2)`` from the top and from the left."""
    steps, places = np.array(list(ACTIONS.values())), []
    for action in actions:
        start = np.clip(start + steps[action], 0, PLACES - 1)
        places.append(start)
    return np.stack(places)


def draw_clip(size: int, look: np.ndarray, places: np.ndarray) -> np.ndarray:
    """``(3, frames, size, size)``; eight numbers in [0, 1) choose what the clip looks like."""
    y, x = np.meshgrid(*[(np.arange(size) + 0.5) / size] * 2, indexing="ij")
    below = background(x, y, 2 * pi * look[0], look[1:5].reshape(2, 2))
    paint = np.array(list(COLORS.values())[int(look[5] * len(COLORS))])[:, None, None]
    step = 1 / (PLACES + 2)
    frames = []
    for down, right in places:
        across, along = np.abs(x - (right + 1.5) * step), np.abs(y - (down + 1.5) * step)
        distance = np.maximum(across, along) if look[6] < 0.5 else np.sqrt(across**2 + along**2)
        covered = np.clip(0.5 + (1.5 * step - distance) * size, 0, 1)
        frames.append(below + (paint - below) * covered)
    return np.stack(frames, 1)


def background(x: Plane, y: Plane, angle: float, tones: np.ndarray) -> Picture:
    """Two grays ``(2, 2)``, each lightness and warmth, that meet along a soft line at an angle in radians.

    They are near the middle of the scale, which is what convolutions pad with: over pale ones networks learn the
    borders first, and the sprite's position several times later.
    """
    lightness, warmth = tones.T
    gray = 0.40 + 0.2 * lightness + np.outer((1, 0, -1), 0.08 * warmth - 0.04)
    share = np.clip(0.5 + 4 * ((x - 0.5) * cos(angle) + (y - 0.5) * sin(angle)) / sqrt(2), 0, 1)
    return gray[:, :1, None] + (gray[:, 1:] - gray[:, :1])[:, :, None] * share
