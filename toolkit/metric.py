"""The interface of metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from toolkit.objective import Bound


class Metric(ABC):
    """Figures over a whole split.

    May ask for ``data: DataSpec``, ``code_spec: CodeSpec`` and ``quantizer: Quantizer``, the model's own, which
    training goes on changing.

    Law, checked by toolkit.testing.MetricSuite: order and batching of the updates, and of what it is fitted to, do not
    matter.
    """

    fitted: ClassVar[bool] = False
    """Whether it learns something from training examples, which ``fit`` is given before the first update."""

    def fit(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        """Takes one batch of training examples in, as ``update`` does of the split that is measured."""
        raise NotImplementedError(f"{type(self).__name__} says that it is fitted, and has no fit")

    @abstractmethod
    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        """Takes one batch in: x ``(batch, channels, *axes)``, what the model made of it, what is known beside it."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """The figures by name, over all that was taken in."""

    def warnings(self) -> list[str]:
        """One sentence for each thing that a person should know about the figures.

        What stands before its first colon says which thing it is: training tells each once.
        """
        return []

    def plot(self, folder: Path) -> list[Path]:
        """Pictures of what was measured, if any: writes them into a folder that is there, and names them."""
        return []
