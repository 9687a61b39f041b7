"""The laws of metrics, as tests that a plugin's tests inherit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import isfinite
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from toolkit.metric import Metric
from toolkit.objective import Bound
from toolkit.objectives.elbo import ELBO
from toolkit.spec import DataSpec, LatentSpec
from toolkit.testing.parts import point_autoencoder, random_data

EXAMPLES = 12


class MetricSuite(ABC):
    """Subclass it as ``class TestMyMetric(MetricSuite)`` and say how to ``make`` one.

    It is shown what an autoencoder of the smallest parts makes of noise.
    """

    data: ClassVar[DataSpec] = DataSpec(3, (12, 16), levels=7)
    """What the metric judges."""

    @abstractmethod
    def make(self, data: DataSpec, latent: LatentSpec) -> Metric:
        """A metric that has seen nothing yet."""

    def measure(self, groups: list[list[int]]) -> dict[str, float]:
        """The figures after one update for each group of examples."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            autoencoder = point_autoencoder(self.data).eval()
        metric, x = self.make(self.data, autoencoder.latent), random_data(self.data, EXAMPLES)
        with torch.inference_mode():
            for group in groups:
                metric.update(x[group], ELBO().bound(autoencoder, x[group], {}))
        return metric.compute()

    @pytest.mark.parametrize(
        "groups",
        [
            [[i] for i in range(EXAMPLES)],
            [list(range(EXAMPLES))[::-1]],
            [[11, 3, 0, 7, 5], [1], [2, 4, 6, 8, 9, 10]],
        ],
        ids=["alone", "backwards", "mixed"],
    )
    def test_order_and_batching_do_not_matter(self, groups: list[list[int]]) -> None:
        expected = self.measure([list(range(EXAMPLES))])
        assert self.measure(groups) == pytest.approx(expected, rel=1e-5, abs=1e-7)

    def test_figures_are_numbers(self) -> None:
        figures = self.measure([list(range(EXAMPLES))])
        assert figures
        for name, figure in figures.items():
            assert isinstance(figure, float), f"{name} is {type(figure).__name__}"
            assert isfinite(figure), f"{name} is {figure}"

    def test_asking_twice_changes_nothing(self) -> None:
        metric, x = self._after_one_update()
        assert metric.compute() == metric.compute()
        assert len(x)

    def test_warnings_are_sentences(self) -> None:
        metric, _ = self._after_one_update()
        assert all(isinstance(text, str) and text for text in metric.warnings())

    def test_nothing_taken_in_breaks_nothing(self) -> None:
        metric = self.make(self.data, LatentSpec(self.data.axes, (8,)))
        assert isinstance(metric.compute(), dict)
        assert metric.warnings() == []

    def _after_one_update(self) -> tuple[Metric, Tensor]:
        autoencoder, x = point_autoencoder(self.data).eval(), random_data(self.data, EXAMPLES)
        metric = self.make(self.data, autoencoder.latent)
        with torch.inference_mode():
            bound: Bound = ELBO().bound(autoencoder, x, {})
            metric.update(x, bound)
        return metric, x
