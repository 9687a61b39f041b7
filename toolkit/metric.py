"""The interface of metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from toolkit.objective import Bound


class Metric(ABC):
    """Numbers measured over a whole split.

    The constructor may ask for ``data: DataSpec``, ``code_spec: CodeSpec`` and ``quantizer: Quantizer``: the model's
    own module, which training keeps changing.

    Law, checked by toolkit.testing.MetricSuite: the order and batching of the updates, and of the examples that it is
    fitted to, do not matter.
    """

    fitted: ClassVar[bool] = False
    """Whether it learns from training examples, which ``fit`` gets before the first update."""

    def fit(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        """Adds one batch of training examples; arguments as of ``update``."""
        raise NotImplementedError(f"{type(self).__name__} has fitted = True but no fit")

    @abstractmethod
    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        """Adds one batch: x ``(batch, channels, *axes)``, the model's output for it, and its conditions."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """The metrics by name, over all batches so far."""

    def warnings(self) -> list[str]:
        """One sentence for each thing that the user should know about these metrics.

        The text before the first colon identifies the warning: training shows each only once.
        """
        return []

    def plot(self, folder: Path) -> list[Path]:
        """Writes plots of what was measured, if any, to an existing folder, and returns their paths."""
        return []
