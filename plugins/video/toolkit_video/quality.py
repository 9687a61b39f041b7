"""Quality of reconstructed clips, frame by frame and over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from toolkit import Bound, DataSpec, Metric
from toolkit.device import double
from toolkit.metric import Direction

WINDOW = 11
"""Pixels of SSIM's Gaussian window."""
PEAK = 2.0
"""From the least to the largest value of scaled data."""
LARGEST = 100.0
"""Decibels at which two frames are the same."""


@final
class QualityMetric(Metric):
    """Compares the likelihood's mean with x, both on the scale of [-1, 1], frame by frame.

    ``frame_psnr``, in decibels, from a frame's error over the whole split, and ``frame_ssim`` (Wang et al. 2004, with a
    Gaussian window of 11 pixels, by torchmetrics, for frames that are not smaller): means over a clip's frames.
    ``frame_psnr_decay`` and ``frame_ssim_decay``: how much lower they are at the last frame than at the first, on their
    least-squares line. ``temporal_error``: mean squared error of the changes from frame to frame, over the mean square
    of the changes themselves, so that a still reconstruction has 1. Empty if the likelihood has no mean. Plots the
    curves.
    """

    directions: ClassVar[Mapping[str, Direction]] = {
        "frame_psnr": "max",
        "frame_ssim": "max",
        "frame_psnr_decay": "min",
        "frame_ssim_decay": "min",
        "temporal_error": "min",
    }

    def __init__(self, data: DataSpec) -> None:
        if data.rank != 3:
            raise ValueError(f"it evaluates clips, of three axes; this data has {data.rank}: {data.axes}")
        self.data = data
        self._error, self._ssim = (torch.zeros(data.axes[0], dtype=torch.double) for _ in range(2))
        self._change = self._changes = 0.0
        self._examples = 0
        self._has_mean = True

    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        mean = output.likelihood.mean
        self._has_mean = mean is not None
        if mean is None:
            return
        target, estimate = double(self.data.scale(x)), double(mean)
        self._examples += len(x)
        self._error += (target - estimate).square().mean((1, 3, 4)).sum(0).cpu()
        change = target.diff(dim=2)
        self._change += float((estimate.diff(dim=2) - change).square().sum())
        self._changes += float(change.square().sum())
        if self._has_ssim:
            self._ssim += double(_ssim(target.float(), estimate.float())).sum(0).cpu()

    def compute(self) -> dict[str, float]:
        metrics = {}
        for name, curve in self._curves().items():
            metrics[name] = float(curve.mean())
            if len(curve) > 1:
                metrics[f"{name}_decay"] = decay(curve)
        if self._changes:
            metrics["temporal_error"] = self._change / self._changes
        return metrics

    def state(self) -> tuple[Any, ...]:
        return self._error, self._ssim, self._change, self._changes, self._examples, self._has_mean

    def merge(self, state: tuple[Any, ...]) -> None:
        error, ssim, change, changes, examples, has_mean = state
        self._has_mean &= has_mean
        self._error += error
        self._ssim += ssim
        self._change += change
        self._changes += changes
        self._examples += examples

    def warnings(self) -> list[str]:
        if self._has_mean:
            return []
        return ["video_quality: an autoregressive decoder has no mean to compare; toolkit reconstruct samples from it"]

    def plot(self, folder: Path) -> list[Path]:
        curves = self._curves()
        if not curves or self.data.axes[0] == 1:
            return []
        path = folder / "frames.png"
        plot_curves(path, {name: curve.tolist() for name, curve in curves.items()})
        return [path]

    def _curves(self) -> dict[str, Tensor]:
        """By metric, its value at each frame ``(frames,)``."""
        if not self._examples:
            return {}
        curves = {"frame_psnr": _decibels(self._error / self._examples)}
        return {**curves, "frame_ssim": self._ssim / self._examples} if self._has_ssim else curves

    @property
    def _has_ssim(self) -> bool:
        return min(self.data.axes[1:]) >= WINDOW


def decay(curve: Tensor) -> float:
    """How far a curve ``(frames,)`` falls from its first to its last value, along its least-squares line."""
    places = torch.arange(len(curve), dtype=curve.dtype)
    places -= places.mean()
    slope = (places * curve).sum() / places.square().sum()
    return -float(slope) * (len(curve) - 1)


def plot_curves(path: Path, curves: Mapping[str, Sequence[float]]) -> None:
    """A panel for each metric over the frames."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(4.2 * len(curves), 3.2), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (name, curve) in zip(panels, curves.items(), strict=True):
        axes.plot(range(1, len(curve) + 1), curve, marker="o", markersize=3)
        axes.set_xlabel("frame")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel({"frame_psnr": "PSNR in dB"}.get(name, "SSIM"))
        axes.grid(alpha=0.3)
    figure.savefig(path)


def _decibels(error: Tensor) -> Tensor:
    least = PEAK**2 * 10 ** (-LARGEST / 10)
    return 10 * (2 * log10(PEAK) - error.clamp(min=least).log10())


def _ssim(target: Tensor, estimate: Tensor) -> Tensor:
    """Structural similarity of each frame: ``(batch, frames)``."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    one, other = (x.transpose(1, 2).flatten(0, 1) for x in (estimate, target))
    value = structural_similarity_index_measure(one, other, data_range=PEAK, reduction="none")
    assert isinstance(value, Tensor)
    return value.view(len(target), -1)
