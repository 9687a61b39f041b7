"""The laws of metrics, as tests that a plugin's tests inherit."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from toolkit.autoencoder import Autoencoder
from toolkit.metric import Metric, can_merge, judges_samples, measured
from toolkit.objectives.elbo import ELBO
from toolkit.spec import DataSpec
from toolkit.testing.laws import Laws, as_assertion
from toolkit.testing.on_gpu import on_gpu, there
from toolkit.testing.parts import point_autoencoder, random_conditions, random_data

EXAMPLES = 12


class MetricSuite(Laws, ABC):
    """Subclass it as ``class TestMyMetric(MetricSuite)`` and build one in ``make``.

    It gets a minimal autoencoder's output for noise.
    """

    data: ClassVar[DataSpec] = DataSpec(3, (12, 16), levels=7)
    """The data that the metric measures, with the conditions that it needs."""

    @abstractmethod
    def make(self, model: Autoencoder) -> Metric:
        """A new metric of this model, from those of ``model.data``, ``model.code_spec`` and ``model.quantizer`` that it
        asks for."""

    def model(self) -> Autoencoder:
        """A minimal autoencoder, the same at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return point_autoencoder(self.data).eval()

    def after(self, groups: list[list[int]]) -> Metric:
        """A metric after one update, one batch of training examples, and one of samples where it judges them, for each
        group of examples."""
        return self._after(groups, lambda given: given)

    def _after(self, groups: list[list[int]], placed: Callable[[Any], Any]) -> Metric:
        model = self.model()
        if placed is there:
            model = model.to("cuda")
        x, samples, known = placed(
            (
                random_data(self.data, EXAMPLES),
                random_data(self.data, EXAMPLES, seed=1),
                random_conditions(self.data, EXAMPLES),
            )
        )
        metric = self.make(model)
        with torch.inference_mode():
            for add in (metric.fit, metric.update) if metric.fitted else (metric.update,):
                for group in groups:
                    conditions = {name: value[group] for name, value in known.items()}
                    add(x[group], ELBO().bound(model, x[group], conditions), conditions)
            for group in groups if judges_samples(metric) else ():
                metric.update_samples(samples[group], {name: value[group] for name, value in known.items()})
        return metric

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
        expected = self.after([list(range(EXAMPLES))]).compute()
        assert self.after(groups).compute() == pytest.approx(expected, rel=1e-5, abs=1e-7)

    def test_metrics_are_finite_numbers(self) -> None:
        with as_assertion():
            metrics = measured(self.after([list(range(EXAMPLES))]))
        assert metrics
        for name, value in metrics.items():
            assert isinstance(value, float), f"{name} is {type(value).__name__}"
            assert isfinite(value), f"{name} is {value}"

    def test_parts_that_are_merged_measure_as_one(self) -> None:
        """The state goes from process to process as ranks send it."""
        first, second = self.after([[0, 1, 2, 3, 4]]), self.after([[5, 6], [7, 8, 9, 10, 11]])
        if not can_merge(first):
            pytest.skip("has no merge: every rank measures everything")
        first.merge(pickle.loads(pickle.dumps(second.state())))
        expected = self.after([list(range(EXAMPLES))]).compute()
        assert first.compute() == pytest.approx(expected, rel=1e-5, abs=1e-7)
        first.merge(pickle.loads(pickle.dumps(self.make(self.model()).state())))  # of a rank without an example
        assert first.compute() == pytest.approx(expected, rel=1e-5, abs=1e-7)

    def test_it_computes_on_a_gpu(self) -> None:
        """What lies there measures as what lies on the CPU; on a stand-in for a GPU."""
        expected = self.after([list(range(EXAMPLES))]).compute()
        with on_gpu():
            metrics = self._after([list(range(EXAMPLES))], there).compute()
        assert metrics == pytest.approx(expected, rel=1e-5, abs=1e-7)

    def test_computing_twice_changes_nothing(self) -> None:
        metric = self.after([list(range(EXAMPLES))])
        assert metric.compute() == metric.compute()

    def test_samples_are_figures_of_their_own(self) -> None:
        """Judging them changes nothing that is said of reconstructions, and adds a figure."""
        metric = self.make(self.model())
        if not judges_samples(metric):
            pytest.skip("judges no samples")
        with torch.inference_mode():
            model, x, known = self.model(), random_data(self.data, EXAMPLES), random_conditions(self.data, EXAMPLES)
            metric.update(x, ELBO().bound(model, x, known), known)
        before, after = metric.compute(), self.after([list(range(EXAMPLES))]).compute()
        assert {name: after.get(name) for name in before} == pytest.approx(before, rel=1e-5, abs=1e-7)
        assert after.keys() > before.keys(), "samples add no figure"

    def test_warnings_are_sentences(self) -> None:
        metric = self.after([list(range(EXAMPLES))])
        assert all(isinstance(text, str) and text for text in metric.warnings())

    def test_plots_are_written_to_the_folder(self, tmp_path: Path) -> None:
        metric = self.after([list(range(EXAMPLES))])
        metrics = metric.compute()
        assert sorted(metric.plot(tmp_path)) == sorted(tmp_path.iterdir())
        assert metric.compute() == metrics

    def test_it_works_without_an_update(self, tmp_path: Path) -> None:
        metric = self.make(self.model())
        assert isinstance(metric.compute(), dict)
        assert metric.warnings() == []
        assert all(path.is_file() for path in metric.plot(tmp_path))
