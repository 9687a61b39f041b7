"""The interface of metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from toolkit.objective import Bound


class Metric(ABC):
    """Figures over a whole split. May ask for ``data: DataSpec`` and ``latent: LatentSpec``.

    Law, checked by toolkit.testing.MetricSuite: order and batching of the updates do not matter.
    """

    @abstractmethod
    def update(self, x: Tensor, output: Bound) -> None:
        """Takes one batch in: x ``(batch, channels, *axes)`` and what the model made of it."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """The figures by name, over all that was taken in."""

    def warnings(self) -> list[str]:
        """One sentence for each thing that a person should know about the figures."""
        return []
