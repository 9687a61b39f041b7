"""The interface of feature networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch.nn.functional as F
from torch import Tensor, nn

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's colors, on a scale from 0 to 1."""


class FeatureNetwork(nn.Module, ABC):
    """A network whose layers are compared. Its sizes are those of the weights that it is built for, and the names of
    its tensors are those of the publisher's files."""

    file: ClassVar[str]
    """The publisher's file of weights, as torch's cache has it."""
    normalization: ClassVar[tuple[tuple[float, ...], tuple[float, ...]]] = IMAGENET
    """Mean and standard deviation of what it was trained on."""
    default_layers: ClassVar[tuple[str, ...]] = ()
    """What is compared where nothing else is asked for; empty: evenly spaced ones."""
    smallest: ClassVar[int]
    """Pixels that a picture must have along each side."""

    @classmethod
    @abstractmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Self:
        """One of the sizes of these weights. KeyError where a tensor is missing."""

    @property
    @abstractmethod
    def layers(self) -> tuple[str, ...]:
        """The names of its layers, first to last."""

    @abstractmethod
    def forward(self, x: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """Normalized pictures ``(batch, 3, height, width)`` to features of these layers, in order, each ``(batch,
        channels, height, width)``; nothing behind the last of them is computed."""

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """Normalized pictures to one vector for each ``(batch, features)``."""

    def head(self, layer: str) -> Tensor | None:
        """How much each channel of a layer counts ``(channels,)``; None: all alike."""
        return None


def same_padded(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """A convolution with TensorFlow's padding: the output has one position per stride, an odd pad goes behind."""
    pads: list[int] = []
    for size, kernel, stride in zip(x.shape[:1:-1], conv.kernel_size[::-1], conv.stride[::-1], strict=True):
        pad = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [pad // 2, pad - pad // 2]
    y: Tensor = conv(F.pad(x, pads))
    return y


def evenly(names: Sequence[str], n: int = 4) -> tuple[str, ...]:
    """``n`` of the names, evenly spaced, up to the last."""
    n = min(n, len(names))
    return tuple(names[(i + 1) * len(names) // n - 1] for i in range(n))
