"""The Fréchet Inception distance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, final

from torch import Tensor

from toolkit import Bound, DataSpec, Metric, ToolkitError
from toolkit.metric import Direction
from toolkit.metrics.gaussians import Sums
from toolkit.ranges import PositiveInt
from toolkit_image.features import weights as files
from toolkit_image.features.frozen import without_parameters
from toolkit_image.features.judged import Judged
from toolkit_image.features.sets import FrechetDistances

FILE = "weights-inception-2015-12-05-6726825d.pth"
"""torch-fidelity's file of the original network's weights."""


@final
class FidMetric(Metric):
    """The Fréchet Inception distance (Heusel et al. 2017, arXiv:1706.08500) between the split's pictures and their
    reconstructions, the likelihood's means (``rfid_…``), and between those and samples (``gfid_…``): over the 2048
    features of torch-fidelity's port of the original network, with its resizing, so that the figures are its own.

    Figures of other resizing, crops and numbers of pictures are not comparable. So a name has them all:
    ``rfid_inception_64x64_n5000`` is over 5000 whole pictures of 64 by 64, ``…_256crop_…`` over squares of 256 pixels
    out of their middle.

    Args:
        weights: torch-fidelity's file weights-inception-2015-12-05-6726825d.pth; null: the one in torch's cache.
        features: the layer by its width; fewer than 2048 want fewer pictures, and are named ``inception64``.
        size: pixels that the shorter side is resized to first; null: pictures as they are.
        crop: pixels of the square in the middle that is judged; null: all of it.
    """

    directions: ClassVar[Mapping[str, Direction]] = {"rfid": "min", "gfid": "min"}

    def __init__(
        self,
        data: DataSpec,
        *,
        weights: str | None = None,
        features: Literal[2048, 768, 192, 64] = 2048,
        size: PositiveInt | None = None,
        crop: PositiveInt | None = None,
    ) -> None:
        network = _inception(weights, features)
        self._extractor = "inception" if features == 2048 else f"inception{features}"
        judged = Judged(data, lambda pictures: network((pictures * 255).round().byte()), network, size, crop)
        self._distances = FrechetDistances(judged)

    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        self._distances.add(x, output)

    def update_samples(self, x: Tensor, conditions: Mapping[str, Tensor]) -> None:
        self._distances.add_samples(x)

    def compute(self) -> dict[str, float]:
        of = self._distances
        figures = {
            self._name("rfid", of.reconstructions.count): of.of_reconstructions(),
            self._name("gfid", of.samples.count): of.of_samples(),
        }
        return {name: figure for name, figure in figures.items() if figure is not None}

    def state(self) -> list[Sums]:
        return self._distances.state()

    def merge(self, state: list[Sums]) -> None:
        self._distances.merge(state)

    def _name(self, kind: str, n: int) -> str:
        return f"{kind}_{self._extractor}_{self._distances.judged.size}_n{n}"


def _inception(given: str | None, features: int) -> Any:
    """The network in eval mode: pictures of uint8 to features. ToolkitError where it or its weights are not there."""
    path = files.find("inception", FILE, given)
    files.read(path)  # which refuses what is more than tensors: the package would run it
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        return without_parameters(
            NoTrainInceptionV3("inception-v3-compat", [str(features)], str(path), antialias=False)
        )
    except ModuleNotFoundError as e:
        raise ToolkitError(
            "metric=image_fid needs the package torch-fidelity: pip install 'discrete-toolkit-image[fid]'"
        ) from e
    except RuntimeError as e:
        reason = str(e).splitlines()[-1].strip()
        raise ToolkitError(f"{path} does not hold the weights of torch-fidelity's Inception: {reason}") from e
