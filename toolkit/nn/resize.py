"""Latents from a grid to a coarser or finer one of the same rank."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor
from typing import Annotated, Literal, cast, final, get_args

import torch
from torch import Tensor, nn
from typing_extensions import Doc

_Upsampling = Literal["nearest", "linear", "cubic"]

Upsampling = Annotated[_Upsampling, Doc("how what lies on a coarse grid is interpolated to a finer one.")]

SHARPNESS = -0.75
"""The free parameter of cubic convolution (Keys 1981), as PyTorch has it."""


@final
class Resize(nn.Module):
    """A linear map along each axis: the mean over a position's window where an axis gets shorter, else interpolation.

    The same as PyTorch's adaptive average pooling and ``interpolate`` (without ``align_corners``), of any rank, and
    deterministic on every device, as it is a product with a small matrix for each axis.
    """

    def __init__(self, source: Sequence[int], target: Sequence[int], upsampling: Upsampling = "linear") -> None:
        super().__init__()
        if len(source) != len(target):
            raise ValueError(f"from a grid of {tuple(source)} to one of {tuple(target)}: as many axes are needed")
        if upsampling not in get_args(_Upsampling):
            raise ValueError(f"upsampling={upsampling}: one of {', '.join(get_args(_Upsampling))}")
        self.axes = [axis for axis, sizes in enumerate(zip(source, target, strict=True)) if sizes[0] != sizes[1]]
        for axis in self.axes:
            matrix = _matrix(source[axis], target[axis], upsampling)
            self.register_buffer(f"axis_{axis}", matrix, persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        """z ``(batch, channels, *source)`` to ``(batch, channels, *target)``."""
        for axis in self.axes:
            matrix, rows = cast(Tensor, getattr(self, f"axis_{axis}")), z.movedim(2 + axis, -1)
            # One product of all rows: without gradients torch takes one for each channel of each example.
            resized = rows.reshape(-1, rows.shape[-1]) @ matrix.to(z.dtype).mT
            z = resized.unflatten(0, rows.shape[:-1]).movedim(-1, 2 + axis)
        return z


def _matrix(source: int, target: int, upsampling: str) -> Tensor:
    """``(target, source)``: the weights with which each target position sums the source's."""
    if target < source:
        return _windows(source, target)
    return {"nearest": _nearest, "linear": _linear, "cubic": _cubic}[upsampling](source, target)


def _windows(source: int, target: int) -> Tensor:
    matrix = torch.zeros(target, source)
    for row in range(target):
        first, end = floor(row * source / target), ceil((row + 1) * source / target)
        matrix[row, first:end] = 1 / (end - first)
    return matrix


def _nearest(source: int, target: int) -> Tensor:
    return torch.eye(source)[torch.arange(target) * source // target]


def _linear(source: int, target: int) -> Tensor:
    matrix = torch.zeros(target, source)
    for row in range(target):
        place = max(0.0, (row + 0.5) * source / target - 0.5)
        first = floor(place)
        matrix[row, first] += 1 - (place - first)
        matrix[row, min(first + 1, source - 1)] += place - first
    return matrix


def _cubic(source: int, target: int) -> Tensor:
    matrix = torch.zeros(target, source)
    for row in range(target):
        place = (row + 0.5) * source / target - 0.5
        for tap in range(floor(place) - 1, floor(place) + 3):
            matrix[row, min(max(tap, 0), source - 1)] += _keys(abs(place - tap))
    return matrix


def _keys(distance: float) -> float:
    """The cubic convolution kernel."""
    if distance <= 1:
        return ((SHARPNESS + 2) * distance - (SHARPNESS + 3)) * distance * distance + 1
    return SHARPNESS * (((distance - 5) * distance + 8) * distance - 4)
