"""The interface of metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor

from toolkit.errors import ToolkitError
from toolkit.objective import Bound

Direction = Literal["min", "max"]
"""Whether less or more of a figure is better."""


class Metric(ABC):
    """Numbers measured over a whole split.

    The constructor may ask for ``data: DataSpec``, ``code_spec: CodeSpec`` and ``quantizer: Quantizer``: the model's
    own module, which training keeps changing.

    Laws, checked by toolkit.testing.MetricSuite:
      the order and batching of the updates, and of the examples that it is fitted to, do not matter
      nor does that of samples, where it judges them
      where it has ``state`` and ``merge``: measured in parts and merged, it is as if measured at once
    """

    fitted: ClassVar[bool] = False
    """Whether it learns from training examples, which ``fit`` gets before the first update."""

    directions: ClassVar[Mapping[str, Direction]] = {}
    """Which way its metrics are better, by their names, or by what these begin with before a ``_``: of those that are
    better neither way, such as a count, nothing. ``trainer.best`` goes by it."""

    def fit(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        """Adds one batch of training examples; arguments as of ``update``."""
        raise NotImplementedError(f"{type(self).__name__} has fitted = True but no fit")

    @abstractmethod
    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        """Adds one batch: x ``(batch, channels, *axes)``, the model's output for it, and its conditions."""

    def update_samples(self, x: Tensor, conditions: Mapping[str, Tensor]) -> None:
        """Adds one batch of samples ``(batch, channels, *axes)``, as the data has them, and what they were drawn for.

        A metric that defines it judges what a prior draws, too: it is asked where an evaluation draws samples, after
        all updates. What it then computes of samples has names of its own.
        """
        raise NotImplementedError(f"{type(self).__name__} judges no samples")

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """The metrics by name, over all batches so far."""

    def state(self) -> Any:
        """What was measured and fitted so far, of any type that pickles, for another rank's ``merge``."""
        raise NotImplementedError(f"{type(self).__name__} has merge but no state")

    def merge(self, state: Any) -> None:
        """Adds what another metric of this model measured, given by its ``state``.

        With it, each rank measures a share of the examples; without it, every rank measures all of them.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be merged")

    def warnings(self) -> list[str]:
        """One sentence for each thing that the user should know about these metrics.

        The text before the first colon identifies the warning: training shows each only once.
        """
        return []

    def histograms(self) -> dict[str, Tensor]:
        """What was counted, ``(bins,)`` by name, for loggers that draw it; of several ranks, on the first."""
        return {}

    def plot(self, folder: Path) -> list[Path]:
        """Writes plots of what was measured, if any, to an existing folder, and returns their paths."""
        return []


def measured(metric: Metric) -> dict[str, float]:
    """Its metrics; ToolkitError where they are not numbers by name."""
    metrics: object = metric.compute()
    if not isinstance(metrics, Mapping):
        raise ToolkitError(f"{type(metric).__name__}.compute gives {type(metrics).__name__}, not a dict of floats")
    for name, value in metrics.items():
        if not isinstance(value, float | int):
            wrong = f"{type(value).__name__}{f' of shape {tuple(value.shape)}' if isinstance(value, Tensor) else ''}"
            raise ToolkitError(f"{type(metric).__name__}.compute gives {wrong} as {name}, not a float")
    return dict(metrics)


def can_merge(metric: Metric) -> bool:
    """Whether it can be measured in parts."""
    return type(metric).merge is not Metric.merge


def judges_samples(metric: Metric) -> bool:
    """Whether it has something to say of samples."""
    return type(metric).update_samples is not Metric.update_samples


def direction_of(name: str, directions: Mapping[str, Direction]) -> Direction | None:
    """Of a metric: what is said of its name, or of the longest beginning of that; None where nothing is."""
    known = (key for key in directions if name == key or name.startswith(f"{key}_"))
    longest = max(known, key=len, default=None)
    return None if longest is None else directions[longest]
