"""Procedural shapes: a labeled dataset that needs no download."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import cos, pi, sin, sqrt
from typing import Any, TypeAlias, final

import numpy as np
import torch
from torch import Tensor

from toolkit import Condition, DataSpec
from toolkit.dataset import SPLITS, collate
from toolkit.ranges import PositiveInt
from toolkit_image.files import ImageDataset

Plane: TypeAlias = Any
"""A number at every pixel: an array ``(size, size)`` of float64."""
Picture: TypeAlias = Any
"""Red, green and blue at every pixel: an array ``(3, size, size)`` of float64 in [0, 1]."""

VARIANCE = 0.1218
"""Of the training split, scaled to [-1, 1]; the size of the images hardly matters."""


def circle(x: Plane, y: Plane) -> Plane:
    return np.sqrt(x * x + y * y) - 0.85


def ring(x: Plane, y: Plane) -> Plane:
    return np.abs(circle(x, y) + 0.15) - 0.22


def square(x: Plane, y: Plane) -> Plane:
    return np.maximum(np.abs(x), np.abs(y)) - 0.75


def crescent(x: Plane, y: Plane) -> Plane:
    return np.maximum(circle(x, y) - 0.1, -circle(x - 0.7, y))


def cross(x: Plane, y: Plane) -> Plane:
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.maximum(x, y) - 0.9, np.minimum(x, y) - 0.3)


def heart(x: Plane, y: Plane) -> Plane:
    """A square on its tip and a circle on each of its upper edges."""
    x, y = np.abs(x), y - 0.15
    square = (x + np.abs(y)) / sqrt(2) - 0.6
    lobe = np.sqrt((x - 0.6 / sqrt(2)) ** 2 + (y + 0.6 / sqrt(2)) ** 2) - 0.6
    return np.minimum(square, lobe)


def pointed(points: int, tip: float, notch: float) -> Callable[[Plane, Plane], Plane]:
    """A star with its tips and notches at these radii; a polygon where the notch is an edge's middle."""
    half = pi / points
    edge = np.array([notch * cos(half) - tip, notch * sin(half)])
    across, along = (edge[1], -edge[0]) / np.hypot(*edge)

    def distance(x: Plane, y: Plane) -> Plane:
        angle = np.abs((np.arctan2(x, -y) + half) % (2 * half) - half)
        radius = np.sqrt(x * x + y * y)
        return (radius * np.cos(angle) - tip) * across + radius * np.sin(angle) * along

    return distance


SHAPES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "circle": circle,
    "square": square,
    "triangle": pointed(3, 1.05, 1.05 * cos(pi / 3)),
    "hexagon": pointed(6, 0.95, 0.95 * cos(pi / 6)),
    "star": pointed(5, 1.1, 0.5),
    "ring": ring,
    "crescent": crescent,
    "cross": cross,
    "heart": heart,
}
"""Signed distance to the outline of a shape about one unit in radius, negative inside; y points down."""

COLORS = {
    "red": (0.86, 0.21, 0.22),
    "orange": (0.96, 0.55, 0.18),
    "yellow": (0.98, 0.82, 0.24),
    "green": (0.26, 0.67, 0.36),
    "teal": (0.12, 0.66, 0.69),
    "blue": (0.20, 0.40, 0.82),
    "purple": (0.50, 0.29, 0.72),
    "pink": (0.95, 0.47, 0.66),
}

LEAN = 0.5
"""Radians that a shape is turned to either side, at most."""
SHADOW = 0.4
SHADING = 0.18


@final
class ShapesDataset(ImageDataset):
    """One of nine smooth-edged shapes in one of eight colors on a soft background, with its shadow.

    An example is a function of its split and index, whatever the sizes of the splits.

    Args:
        size: height and width, in pixels; the pictures are the same at every size, but for the resolution.
        train_size: examples to train on.
        val_size: examples to validate on.
        test_size: examples to evaluate on.
        captions: whether there is a condition caption, too, a text such as "a red star".
        unseen: what training and validation are without, such as [red star, blue ring]; testing has all.
    """

    def __init__(
        self,
        *,
        size: PositiveInt = 32,
        train_size: PositiveInt = 20_000,
        val_size: PositiveInt = 2_000,
        test_size: PositiveInt = 2_000,
        captions: bool = False,
        unseen: tuple[str, ...] = (),
    ) -> None:
        if size < 8:
            raise ValueError(f"size={size}: shapes need at least 8 pixels")
        self.sizes = dict(zip(SPLITS, (train_size, val_size, test_size), strict=True))
        for split, count in self.sizes.items():
            if count < 1:
                raise ValueError(f"{split}_size={count}: a split needs at least one example")
        self.captions, self.unseen = captions, frozenset(map(_combination, unseen))
        if len(self.unseen) == len(SHAPES) * len(COLORS):
            raise ValueError(f"unseen={list(unseen)}: nothing is left to train on")
        conditions = (
            Condition("shape", len(SHAPES), tuple(SHAPES)),
            Condition("color", len(COLORS), tuple(COLORS)),
            *([Condition("caption", LONGEST, text=True)] if captions else []),
        )
        self.spec = DataSpec(3, (size, size), levels=256, variance=VARIANCE, conditions=conditions)

    def size(self, split: str) -> int:
        return self.sizes[split]

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        """``x`` (3, size, size) uint8, the labels ``shape`` and ``color``, and perhaps the text ``caption``; the
        generator is not used."""
        if not 0 <= index < self.sizes[split]:
            raise IndexError(f"{split} has {self.sizes[split]} examples, no index {index}")
        random = np.random.default_rng((SPLITS.index(split), index))
        choices = random.random(16)
        shape, color = _labels(choices)
        while split != "test" and (shape, color) in self.unseen:
            shape, color = _labels(random.random(2))
        picture = draw_shape(self.spec.axes[0], list(SHAPES)[shape], list(COLORS)[color], choices[2:])
        x = torch.from_numpy((picture * 255 + 0.5).astype(np.uint8))
        labels = {"shape": torch.tensor(shape), "color": torch.tensor(color)}
        if self.captions:
            caption = self.spec.conditions[2]
            labels["caption"] = caption.encoded(caption_of(list(SHAPES)[shape], list(COLORS)[color]))
        return {"x": x, **labels}

    def table(self, split: str) -> dict[str, Tensor]:
        return collate(self, split, range(self.sizes[split]), None)


def caption_of(shape: str, color: str) -> str:
    """Such as "a red star"."""
    return f"{'an' if color[0] in 'aeiou' else 'a'} {color} {shape}"


LONGEST = max(len(caption_of(shape, color)) for shape in SHAPES for color in COLORS)
"""Bytes of a caption."""


def _labels(choices: np.ndarray) -> tuple[int, int]:
    """A shape and a color by two numbers in [0, 1)."""
    return int(choices[0] * len(SHAPES)), int(choices[1] * len(COLORS))


def _combination(text: str) -> tuple[int, int]:
    """The shape and the color of ``red star``."""
    color, _, shape = text.partition(" ")
    if color not in COLORS or shape not in SHAPES:
        raise ValueError(
            f"unseen=[{text}]: give a color and a shape, such as red star; colors: {', '.join(COLORS)}; shapes:"
            f" {', '.join(SHAPES)}"
        )
    return list(SHAPES).index(shape), list(COLORS).index(color)


def draw_shape(size: int, shape: str, color: str, choices: np.ndarray) -> Picture:
    """A shape on its background; fourteen numbers in [0, 1) choose what the labels do not determine."""
    across, down, scale, lean, slope = choices[:5]
    x, y = plane(size)
    radius = 0.46 + 0.3 * scale
    x0, y0 = (2 * across - 1) * (0.94 - radius), (2 * down - 1) * (0.94 - radius)

    def distance(x: Plane, y: Plane) -> Plane:
        return SHAPES[shape](*turned((x - x0) / radius, (y - y0) / radius, LEAN * (2 * lean - 1))) * radius

    picture = background(x, y, 2 * pi * slope, choices[5:11].reshape(2, 3))
    picture *= 1 - SHADOW * inside(distance(x - 0.06, y - 0.12), 0.3)
    light = 1 - SHADING * (x - x0 + y - y0) / radius
    tint = np.array(COLORS[color]) + 0.12 * (choices[11:14] - 0.5)
    paint = np.clip(tint[:, None, None] * light, 0, 1)
    return picture + (paint - picture) * inside(distance(x, y), 2 / size)


def background(x: Plane, y: Plane, angle: float, colors: np.ndarray) -> Picture:
    """A gradient between two pale colors ``(2, 3)``, at an angle in radians."""
    first, second = 0.62 + 0.36 * colors[:, :, None, None]
    share = 0.5 + (x * cos(angle) + y * sin(angle)) / sqrt(8)
    return first + (second - first) * share


def inside(distance: Plane, softness: float) -> Plane:
    """How much of a pixel is inside an outline, which is softened over this width."""
    return np.clip(0.5 - distance / softness, 0, 1)


def turned(x: Plane, y: Plane, angle: float) -> tuple[Plane, Plane]:
    return x * cos(angle) + y * sin(angle), y * cos(angle) - x * sin(angle)


@cache
def plane(size: int) -> tuple[Plane, Plane]:
    """The pixels' middles, x to the right and y down, from -1 to 1."""
    middles = (2 * np.arange(size) + 1) / size - 1
    return np.broadcast_to(middles, (size, size)), np.broadcast_to(middles[:, None], (size, size))
