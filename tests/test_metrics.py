"""The metrics of the core, each with its equation."""

from __future__ import annotations

from math import exp, log, log10

import pytest
import torch
from torch import Tensor
from torchmetrics.image import StructuralSimilarityIndexMeasure

from toolkit.likelihoods.categorical import CategoricalLikelihood
from toolkit.likelihoods.normal import NormalLikelihood
from toolkit.metric import Metric
from toolkit.metrics.codebook import CodebookMetric
from toolkit.metrics.reconstruction import ReconstructionMetric
from toolkit.objective import Bound
from toolkit.quantizer import Quantized
from toolkit.spec import DataSpec, LatentSpec
from toolkit.testing.metric import MetricSuite
from toolkit.testing.parts import random_data


class TestReconstruction(MetricSuite):
    def make(self, data: DataSpec, latent: LatentSpec) -> Metric:
        return ReconstructionMetric(data)


class TestCodebook(MetricSuite):
    def make(self, data: DataSpec, latent: LatentSpec) -> Metric:
        return CodebookMetric(latent)


def bound(mean: Tensor, data: DataSpec) -> Bound:
    """What a model makes of a batch if its likelihood has this mean."""
    nothing = torch.zeros(len(mean))
    codes = torch.zeros(len(mean), 1, 1, dtype=torch.int64)
    quantized = Quantized(nothing, codes, nothing, nothing, {})
    return Bound(nothing, nothing, NormalLikelihood(data, scale=1.0)(mean), quantized)


def coded(codes: Tensor) -> Bound:
    nothing = torch.zeros(len(codes))
    data = DataSpec(1, (1,))
    likelihood = NormalLikelihood(data, scale=1.0)(torch.zeros(len(codes), 1, 1))
    return Bound(nothing, nothing, likelihood, Quantized(nothing, codes, nothing, nothing, {}))


# -- reconstruction


def test_errors_by_hand() -> None:
    data = DataSpec(1, (4,))
    metric = ReconstructionMetric(data)
    x = torch.tensor([[[-1.0, -0.5, 0.5, 1.0]]])
    metric.update(x, bound(x + 0.1, data))
    metric.update(-x, bound(-x, data))
    figures = metric.compute()
    assert figures["mse"] == pytest.approx(0.005)
    assert figures["nmse"] == pytest.approx(0.005 / 0.625)
    assert figures["psnr"] == pytest.approx(10 * log10(2**2 / 0.005))
    assert "ssim" not in figures


def test_errors_over_levels_are_on_the_scale_of_the_data() -> None:
    data = DataSpec(1, (4,), levels=256)
    metric, x = ReconstructionMetric(data), random_data(data, 5)
    metric.update(x, bound((x - 10) / 127.5 - 1, data))
    figures = metric.compute()
    assert figures["mse"] == pytest.approx((10 / 127.5) ** 2, rel=1e-5)
    assert figures["psnr"] == pytest.approx(10 * log10(255**2 / 10**2), rel=1e-5)


def test_a_perfect_reconstruction() -> None:
    data = DataSpec(3, (16, 16))
    metric, x = ReconstructionMetric(data), random_data(data, 2)
    metric.update(x, bound(x, data))
    figures = metric.compute()
    assert figures["psnr"] == float("inf")
    assert figures["ssim"] == pytest.approx(1.0)
    assert figures["mse"] == figures["nmse"] == 0


def test_the_mean_alone_has_an_nmse_of_one() -> None:
    data = DataSpec(2, (9,))
    metric, x = ReconstructionMetric(data), random_data(data, 30)
    metric.update(x, bound(torch.full_like(x, x.mean()), data))
    assert metric.compute()["nmse"] == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("axes", [(16, 20), (12, 12, 14)])
def test_ssim_is_torchmetrics(axes: tuple[int, ...]) -> None:
    data = DataSpec(3, axes)
    metric, oracle = ReconstructionMetric(data), StructuralSimilarityIndexMeasure(data_range=2.0)
    for seed in range(2):
        x = random_data(data, 3, seed)
        mean = (x + 0.3 * torch.randn_like(x)).clamp(-1, 1)
        metric.update(x, bound(mean, data))
        oracle.update(mean, x)
    assert metric.compute()["ssim"] == pytest.approx(oracle.compute().item(), rel=1e-5)


@pytest.mark.parametrize("axes", [(64,), (10, 64)])
def test_no_ssim_where_its_window_does_not_fit(axes: tuple[int, ...]) -> None:
    data = DataSpec(1, axes)
    metric, x = ReconstructionMetric(data), random_data(data, 2)
    metric.update(x, bound(x / 2, data))
    assert set(metric.compute()) == {"mse", "psnr", "nmse"}


def test_a_likelihood_without_a_mean_gives_no_figures() -> None:
    data = DataSpec(1, (4,), levels=3, ordered=False)
    nothing = torch.zeros(2)
    quantized = Quantized(nothing, nothing, nothing, nothing, {})
    likelihood = CategoricalLikelihood(data)(torch.zeros(2, 3, 4))
    metric = ReconstructionMetric(data)
    metric.update(random_data(data, 2), Bound(nothing, nothing, likelihood, quantized))
    assert metric.compute() == {}


# -- codebook


def test_usage_and_perplexity_by_hand() -> None:
    metric = CodebookMetric(LatentSpec((4,), (4, 2)))
    codes = torch.tensor([[[0, 0, 1, 1], [0, 0, 0, 0]], [[0, 0, 3, 3], [0, 0, 0, 1]]])
    metric.update(codes, coded(codes[:1]))
    metric.update(codes, coded(codes[1:]))
    first = exp(0.5 * log(2) + 2 * 0.25 * log(4))
    second = exp(-7 / 8 * log(7 / 8) - 1 / 8 * log(1 / 8))
    figures = metric.compute()
    assert figures["perplexity"] == pytest.approx((first + second) / 2)
    assert figures["usage"] == pytest.approx((3 / 4 + 1) / 2)


def test_even_use_is_the_whole_codebook() -> None:
    metric = CodebookMetric(LatentSpec((512,), (512,)))
    metric.update(torch.zeros(1), coded(torch.arange(512).view(1, 1, 512)))
    assert metric.compute() == {"usage": 1.0, "perplexity": pytest.approx(512)}
    assert metric.warnings() == []


def test_a_collapsed_codebook_is_told() -> None:
    metric = CodebookMetric(LatentSpec((64,), (512, 512)))
    codes = torch.stack([torch.zeros(64, 64).long(), torch.randint(512, (64, 64))], 1)
    metric.update(codes, coded(codes))
    (warning,) = metric.warnings()
    assert "at depth 0 has collapsed: 1 of 512 entries" in warning
    assert "quantizer=ema" in warning


def test_few_positions_are_no_collapse() -> None:
    metric = CodebookMetric(LatentSpec((8,), (512,)))
    codes = torch.randint(512, (2, 1, 8))
    metric.update(codes, coded(codes))
    assert metric.warnings() == []


def test_a_continuous_bottleneck_has_no_codebook() -> None:
    metric = CodebookMetric(LatentSpec((8,), ()))
    metric.update(torch.zeros(2), coded(torch.zeros(2, 0, 8).long()))
    assert metric.compute() == {}
    assert metric.warnings() == []
