"""Data of others, files and arrays of any form, as data of a spec."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Doc

from toolkit.dataset import Dataset
from toolkit.datasets.tars.tensors import from_npy
from toolkit.ranges import Positive, PositiveInt
from toolkit.spec import Condition, DataSpec

Files = Annotated[
    str | None,
    Doc("the dataset whose files these are, such as image_folder; null: NumPy arrays, or numbers in a table"),
]
Channels = Annotated[PositiveInt, Doc("channels of an example")]
Axes = Annotated[tuple[PositiveInt, ...], Doc("positions of an example along each axis, such as [64,64] or [16000]")]
Levels = Annotated[PositiveInt | None, Doc("levels of the data, as files has it; null: floats in [-1, 1]")]
Rate = Annotated[Positive | None, Doc("positions per second along the first axis; null: it is not time")]
Crop = Annotated[
    Literal["random", "start"], Doc("which part of what is longer than an example: in training any, or the first")
]


def spec_of(
    files: type[Dataset] | None,
    channels: int,
    axes: tuple[int, ...],
    levels: int | None,
    rate: float | None,
    conditions: tuple[Condition, ...],
) -> DataSpec:
    """A spec from options; ValueError for what no data is."""
    if not axes:
        raise ValueError("axes=[]: an example has at least one axis")
    if levels is not None and levels < 2:
        raise ValueError(f"levels={levels}: at least 2, or null for real values")
    rest = (None,) * (len(axes) - 1)
    varying = (True, *(False for _ in rest)) if rate is not None and files is not None else ()
    return DataSpec(
        channels, axes, levels, varying=varying, rates=() if rate is None else (rate, *rest), conditions=conditions
    )


@dataclass(frozen=True)
class Fitting:
    """Makes examples of a spec of what others keep."""

    files: type[Dataset] | None
    spec: DataSpec
    crop: str

    def of_bytes(self, content: bytes, name: str, generator: torch.Generator | None) -> Tensor:
        """x ``(channels, *axes)`` of a file's content. ValueError, or ToolkitError, where it is not such data."""
        if self.files is None:
            return self.of_array(from_npy(content), generator)
        return self._cut(self.files.read_bytes(content, name, self.spec), generator)

    def of_file(self, path: Path, generator: torch.Generator | None) -> Tensor:
        """The same of a file."""
        if self.files is None:
            return self.of_bytes(path.read_bytes(), path.name, generator)
        return self._cut(self.files.read(path, self.spec), generator)

    def of_array(self, values: np.ndarray, generator: torch.Generator | None) -> Tensor:
        """The same of numbers in any shape that has as many of them."""
        array, spec = np.asarray(values), self.spec
        if array.dtype.kind not in ("iub" if spec.levels is not None else "f"):
            wanted = "floats in [-1, 1]" if spec.levels is None else "integers"
            raise ValueError(f"it has {array.dtype}: {wanted} are needed")
        if array.size != spec.dims:
            raise ValueError(f"it has {array.shape} numbers: {spec.shape} are needed (channels, then axes)")
        x = torch.from_numpy(array.reshape(spec.shape).astype(np.float32 if spec.levels is None else np.int64))
        low, high = float(x.min()), float(x.max())
        least, most = (-1, 1) if spec.levels is None else (0, spec.levels - 1)
        if not (least <= low and high <= most and isfinite(high)):
            raise ValueError(f"it ranges over {low:g}..{high:g}: {least}..{most} is needed")
        return x

    def _cut(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """A part of what is longer along the first axis; a shorter sound is followed by silence."""
        length, spec = x.shape[1], self.spec
        wanted = spec.axes[0]
        if length > wanted:
            random = generator is not None and self.crop == "random"
            start = int(torch.randint(length - wanted + 1, (), generator=generator)) if random else 0
            x = x[:, start : start + wanted].clone()
        elif length < wanted and spec.rank == 1:
            silence = spec.unscale(torch.zeros(spec.channels, wanted - length)).to(x.dtype)
            x = torch.cat([x, silence], 1)
        if tuple(x.shape) != spec.shape:
            raise ValueError(f"it is {tuple(x.shape)}: {spec.shape} are needed (channels, then axes)")
        return x


FilesOf = Callable[[str], type[Dataset]]
"""The class behind a dataset's name."""
