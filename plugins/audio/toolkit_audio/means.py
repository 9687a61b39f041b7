"""What metrics of sound that ask other packages have in common."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolkit import DataSpec, ToolkitError
from toolkit.likelihood import Distribution
from toolkit_audio.quality import SILENT
from toolkit_audio.waveform import scaled_to_waveform, to_waveform


class Means:
    """Means of named numbers, over all that were added here and by those that were merged."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, value: float, count: int = 1) -> None:
        """``value`` is the sum of ``count`` numbers."""
        self._sums[name] = self._sums.get(name, 0.0) + value
        self._counts[name] = self._counts.get(name, 0) + count

    def compute(self) -> dict[str, float]:
        return {name: total / self._counts[name] for name, total in self._sums.items()}

    def state(self) -> dict[str, tuple[float, int]]:
        return {name: (total, self._counts[name]) for name, total in self._sums.items()}

    def merge(self, state: dict[str, tuple[float, int]]) -> None:
        for name, (total, count) in state.items():
            self.add(name, total, count)


def pairs(x: Tensor, likelihood: Distribution, data: DataSpec) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The mean's and x's waveforms ``(samples,)`` in [-1, 1], of each example that is not silent; none where there is
    no mean."""
    if likelihood.mean is None:
        return
    estimates, targets = _arrays(scaled_to_waveform(likelihood.mean, data)), _arrays(to_waveform(x, data))
    for estimate, target in zip(estimates, targets, strict=True):
        if _loud(target):
            yield estimate, target


def alone(x: Tensor, data: DataSpec) -> Iterator[np.ndarray]:
    """Waveforms ``(samples,)`` in [-1, 1], of each example that is not silent."""
    yield from filter(_loud, _arrays(to_waveform(x, data)))


def _arrays(waveforms: Tensor) -> np.ndarray:
    arrays: np.ndarray = torch.nan_to_num(waveforms[:, 0].float().cpu()).clamp(-1, 1).numpy()
    return arrays


def _loud(sound: np.ndarray) -> bool:
    return float(np.square(sound).mean()) > SILENT


def required(metric: str, module: str, extra: str) -> Any:
    """A module of another package; ToolkitError where it cannot be imported."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ToolkitError(
            f"metric={metric} needs the module {module}, which cannot be imported ({error}):"
            f" pip install 'discrete-toolkit-audio[{extra}]'"
        ) from error
