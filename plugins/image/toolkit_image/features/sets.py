"""The set of all pictures beside that of all reconstructions, and of all samples."""

from __future__ import annotations

from typing import final

from torch import Tensor

from toolkit import Bound
from toolkit.metrics.gaussians import Gaussian, Sums, frechet
from toolkit_image.features.judged import Judged


@final
class FrechetDistances:
    """Gaussians over features of data, reconstructions and samples, and their distances from the data's."""

    def __init__(self, judged: Judged) -> None:
        self.judged = judged
        self.data, self.reconstructions, self.samples = Gaussian(), Gaussian(), Gaussian()

    def add(self, x: Tensor, output: Bound) -> None:
        """A batch, and what the model makes of it, where it has a mean."""
        self.data.add(self.judged.of_data(x))
        mean = output.likelihood.mean
        if mean is not None:
            self.reconstructions.add(self.judged.of_scaled(mean))

    def add_samples(self, x: Tensor) -> None:
        self.samples.add(self.judged.of_data(x))

    def of_reconstructions(self) -> float | None:
        """None of fewer than two."""
        return frechet(self.data, self.reconstructions)

    def of_samples(self) -> float | None:
        """None of fewer than two."""
        return frechet(self.data, self.samples)

    def state(self) -> list[Sums]:
        return [one.state() for one in (self.data, self.reconstructions, self.samples)]

    def merge(self, state: list[Sums]) -> None:
        for own, other in zip((self.data, self.reconstructions, self.samples), state, strict=True):
            own.merge(other)
