"""The Fréchet video distance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from toolkit import Bound, DataSpec, Metric, ToolkitError
from toolkit.metrics.gaussians import Gaussian, Sums, frechet
from toolkit.nn.scripted import Scripted
from toolkit.ranges import PositiveInt

FILE = "i3d_torchscript.pt"
WHAT = f"I3D, such as StyleGAN-V's {FILE}"
FEWEST = 10
"""Frames that I3D needs: it halves time three times, and averages over two of what is left."""


@final
class FvdMetric(Metric):
    """The Fréchet video distance (Unterthiner et al. 2018, arXiv:1812.01717) between the split's clips and their
    reconstructions, the likelihood's means (``rfvd_…``), and between those and samples (``gfvd_…``): the formula of FID
    over the features of I3D, by the file that most papers since StyleGAN-V (Skorokhodov et al. 2022, arXiv:2112.14683)
    report with, i3d_torchscript.pt, which resizes to 224 x 224 pixels itself. Nothing is fetched.

    Figures of other lengths, sizes and numbers of clips are not comparable. So a name has them all:
    ``rfvd_i3d_16x64x64_n2048`` is over 2048 clips of 16 frames of 64 x 64 pixels. Clips are judged as the files that
    one would write of them: in 256 levels.

    Args:
        weights: a TorchScript file of I3D, called as ``network(clips, rescale=True, resize=True,
            return_features=True)`` with clips ``(batch, 3, frames, height, width)`` from 0 to 255; null: that one, in
            torch's cache. It is a program: take it from where you trust it.
        frames: of a clip that are judged, from the first on; null: all.
    """

    def __init__(self, data: DataSpec, *, weights: str | None = None, frames: PositiveInt | None = None) -> None:
        if data.rank != 3 or data.channels not in (1, 3) or not data.ordered:
            raise ValueError(f"judges clips, of 1 or 3 channels and three axes; this data has {data.shape}")
        length = data.axes[0] if frames is None else frames
        if not FEWEST <= length <= data.axes[0]:
            raise ValueError(
                f"frames={frames}: I3D sees {FEWEST} or more, and these clips have {data.axes[0]}: choose longer clips"
                if length < FEWEST
                else f"frames={frames}: these clips have {data.axes[0]}"
            )
        self.data, self.frames, self._network = data, length, Scripted.load(weights or _cached(), WHAT)
        self._data, self._reconstructions, self._samples = Gaussian(), Gaussian(), Gaussian()

    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        self._data.add(self._features(self.data.scale(x)))
        mean = output.likelihood.mean
        if mean is not None:
            self._reconstructions.add(self._features(mean))

    def update_samples(self, x: Tensor, conditions: Mapping[str, Tensor]) -> None:
        self._samples.add(self._features(self.data.scale(x)))

    def compute(self) -> dict[str, float]:
        sets = {"rfvd": self._reconstructions, "gfvd": self._samples}
        figures = {self._name(kind, of.count): frechet(self._data, of) for kind, of in sets.items()}
        return {name: figure for name, figure in figures.items() if figure is not None}

    def state(self) -> list[Sums]:
        return [one.state() for one in (self._data, self._reconstructions, self._samples)]

    def merge(self, state: list[Sums]) -> None:
        for own, other in zip((self._data, self._reconstructions, self._samples), state, strict=True):
            own.merge(other)

    def _features(self, scaled: Tensor) -> Tensor:
        """Of clips on the scale of [-1, 1], ``(batch, features)``."""
        clips = ((scaled[:, :, : self.frames].float() + 1) * 127.5).clamp(0, 255).round()
        try:
            features = self._network(clips.expand(-1, 3, -1, -1, -1), rescale=True, resize=True, return_features=True)
        except RuntimeError as e:
            reason = str(e).strip().splitlines()[-1]
            raise ToolkitError(f"{self._network.path} is no TorchScript file of {WHAT}: {reason}") from e
        if not isinstance(features, Tensor) or features.dim() != 2 or len(features) != len(clips):
            raise ToolkitError(f"{self._network.path} does not give a vector for each clip, as {WHAT} does")
        return features

    def _name(self, kind: str, n: int) -> str:
        _, height, width = self.data.axes
        return f"{kind}_i3d_{self.frames}x{width}x{height}_n{n}"


def _cached() -> str:
    """The file in torch's cache; ToolkitError where it is not there."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / FILE
    if not path.is_file():
        raise ToolkitError(
            f"metric=video_fvd needs the weights of I3D, and {path} is not there: give weights=PATH of such a file"
        )
    return str(path)
