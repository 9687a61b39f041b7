"""The metrics of the core, each with its equation."""

from __future__ import annotations

from math import exp, log, log10
from pathlib import Path
from typing import Any

import pytest
import torch
from messages import assert_names
from torch import Tensor
from torch._subclasses import FakeTensorMode

from toolkit.autoencoder import Autoencoder
from toolkit.likelihoods.categorical import CategoricalLikelihood
from toolkit.likelihoods.normal import NormalLikelihood
from toolkit.metric import Metric
from toolkit.metrics.codebook import CodebookMetric, nearest_pair
from toolkit.metrics.reconstruction import ReconstructionMetric
from toolkit.objective import Bound
from toolkit.plots.codebook import DepthUse
from toolkit.quantizer import Quantized
from toolkit.quantizers.gaussian import GaussianQuantizer
from toolkit.quantizers.product import ProductQuantizer
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.running_metrics import histogram
from toolkit.spec import CodeSpec, DataSpec
from toolkit.testing.metric import MetricSuite
from toolkit.testing.parts import random_data


class TestReconstruction(MetricSuite):
    def make(self, model: Autoencoder) -> Metric:
        return ReconstructionMetric(model.data)


class TestCodebook(MetricSuite):
    def make(self, model: Autoencoder) -> Metric:
        return CodebookMetric(model.code_spec, model.quantizer)


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
    metric.update(x, bound(x + 0.1, data), {})
    metric.update(-x, bound(-x, data), {})
    values = metric.compute()
    assert values["mse"] == pytest.approx(0.005)
    assert values["nmse"] == pytest.approx(0.005 / 0.625)
    assert values["psnr"] == pytest.approx(10 * log10(2**2 / 0.005))
    assert "ssim" not in values


def test_errors_over_levels_are_on_the_scale_of_the_data() -> None:
    data = DataSpec(1, (4,), levels=256)
    metric, x = ReconstructionMetric(data), random_data(data, 5)
    metric.update(x, bound((x - 10) / 127.5 - 1, data), {})
    values = metric.compute()
    assert values["mse"] == pytest.approx((10 / 127.5) ** 2, rel=1e-5)
    assert values["psnr"] == pytest.approx(10 * log10(255**2 / 10**2), rel=1e-5)


def test_a_perfect_reconstruction() -> None:
    data = DataSpec(3, (16, 16))
    metric, x = ReconstructionMetric(data), random_data(data, 2)
    metric.update(x, bound(x, data), {})
    values = metric.compute()
    assert values["psnr"] == float("inf")
    assert values["ssim"] == pytest.approx(1.0)
    assert values["mse"] == values["nmse"] == 0


def test_the_mean_alone_has_an_nmse_of_one() -> None:
    data = DataSpec(2, (9,))
    metric, x = ReconstructionMetric(data), random_data(data, 30)
    metric.update(x, bound(torch.full_like(x, x.mean()), data), {})
    assert metric.compute()["nmse"] == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("axes", [(16, 20), (12, 12, 14)])
def test_ssim_is_torchmetrics(axes: tuple[int, ...]) -> None:
    data = DataSpec(3, axes)
    from torchmetrics.image import StructuralSimilarityIndexMeasure

    metric, oracle = ReconstructionMetric(data), StructuralSimilarityIndexMeasure(data_range=2.0)
    for seed in range(2):
        x = random_data(data, 3, seed)
        mean = (x + 0.3 * torch.randn_like(x)).clamp(-1, 1)
        metric.update(x, bound(mean, data), {})
        oracle.update(mean, x)
    assert metric.compute()["ssim"] == pytest.approx(oracle.compute().item(), rel=1e-5)


@pytest.mark.parametrize("axes", [(64,), (10, 64)])
def test_no_ssim_where_its_window_does_not_fit(axes: tuple[int, ...]) -> None:
    data = DataSpec(1, axes)
    metric, x = ReconstructionMetric(data), random_data(data, 2)
    metric.update(x, bound(x / 2, data), {})
    assert set(metric.compute()) == {"mse", "psnr", "nmse"}


def test_a_likelihood_without_a_mean_gives_no_figures() -> None:
    data = DataSpec(1, (4,), levels=3, ordered=False)
    nothing = torch.zeros(2)
    quantized = Quantized(nothing, nothing, nothing, nothing, {})
    likelihood = CategoricalLikelihood(data)(torch.zeros(2, 3, 4))
    metric = ReconstructionMetric(data)
    metric.update(random_data(data, 2), Bound(nothing, nothing, likelihood, quantized), {})
    assert metric.compute() == {}


# -- codebook


def codebooks(*sizes: int, dim: int = 2, **options: Any) -> ProductQuantizer:
    """A codebook of entries of a depth of its own, for each size."""
    made = iter(sizes)

    def inner(dim: int) -> VectorQuantizer:
        return VectorQuantizer(dim, codebook_size=next(made), **options)

    return ProductQuantizer(dim * len(sizes), inner=inner, groups=len(sizes))


def metric_of(*sizes: int, **options: Any) -> CodebookMetric:
    quantizer = codebooks(*sizes, **options)
    return CodebookMetric(CodeSpec((4,), sizes), quantizer)


def test_usage_and_perplexity_by_hand() -> None:
    metric = metric_of(4, 2)
    codes = torch.tensor([[[0, 0, 1, 1], [0, 0, 0, 0]], [[0, 0, 3, 3], [0, 0, 0, 1]]])
    metric.update(codes[:1], coded(codes[:1]), {})
    metric.update(codes[1:], coded(codes[1:]), {})
    first = exp(0.5 * log(2) + 2 * 0.25 * log(4))
    second = exp(-7 / 8 * log(7 / 8) - 1 / 8 * log(1 / 8))
    values = metric.compute()
    assert values["perplexity"] == pytest.approx((first + second) / 2)
    assert values["usage"] == pytest.approx((3 / 4 + 1) / 2)
    assert values["dead_entries"] == 1
    assert "quantization_error" not in values


def test_usage_and_perplexity_of_each_part_of_the_grid() -> None:
    codes = torch.tensor([[[0, 1, 2, 3, 3], [0] * 5], [[0, 2, 2, 3, 1], [0] * 5]])
    spec = CodeSpec((5,), (4, 2), ((1, 1), (2, 2)))
    halves = [CodebookMetric(spec, codebooks(4, 2)) for _ in range(2)]
    for metric, half in zip(halves, codes.split(1), strict=True):
        metric.update(half, coded(half), {})
    halves[0].merge(halves[1].state())
    values = halves[0].compute()
    assert (values["usage_part_1"], values["perplexity_part_1"]) == (pytest.approx((1 / 4 + 1 / 2) / 2), 1.0)
    assert values["usage_part_2"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    entropy = -(2 * 3 / 8 * log(3 / 8) + 2 / 8 * log(2 / 8))
    assert values["perplexity_part_2"] == pytest.approx((exp(entropy) + 1) / 2)
    assert values["usage"] == pytest.approx((1 + 1 / 2) / 2)


def test_even_use_is_the_whole_codebook() -> None:
    metric = metric_of(512)
    metric.update(torch.zeros(1), coded(torch.arange(512).view(1, 1, 512)), {})
    values = metric.compute()
    assert (values["usage"], values["perplexity"], values["dead_entries"]) == (1.0, pytest.approx(512), 0.0)
    assert metric.warnings() == []


def test_quantization_error_is_a_mean_over_examples() -> None:
    metric = metric_of(4)
    for examples, error in ((1, 5.0), (3, 1.0)):
        codes = torch.zeros(examples, 1, 4, dtype=torch.int64)
        output = coded(codes)
        quantized = output.quantized._replace(metrics={"quantization_error": torch.tensor(error)})
        metric.update(codes, output._replace(quantized=quantized), {})
    assert metric.compute()["quantization_error"] == pytest.approx(2.0)


def test_nearest_pair_is_that_of_one_codebook() -> None:
    """The smallest over depths, whatever lies between entries of different depths."""
    quantizer = codebooks(5, 3)
    tables = [torch.randn(5, 2), 10 * torch.randn(3, 2)]
    with torch.no_grad():
        for part, table in zip(quantizer.inner, tables, strict=True):
            part.codebook.copy_(table)
    metric = CodebookMetric(CodeSpec((4,), (5, 3)), quantizer)
    pairs = [torch.nn.functional.pdist(table.double()).min().item() for table in tables]
    assert metric.compute()["nearest_pair"] == pytest.approx(min(pairs))
    with torch.no_grad():
        quantizer.inner[1].codebook[2] = quantizer.inner[1].codebook[0]
    assert metric.compute()["nearest_pair"] == 0


@pytest.mark.parametrize("tile", [1, 50, 1 << 20])
def test_nearest_pair_by_enumeration(monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    """Far from the origin, too, and however the distances are tiled."""
    monkeypatch.setattr("toolkit.metrics.codebook.TILE", tile)
    for rows in (2, 3, 40):
        table = 100 + 0.01 * torch.randn(rows, 6, dtype=torch.float64)
        assert nearest_pair(table) == pytest.approx(torch.nn.functional.pdist(table).min().item(), rel=1e-6)
    assert nearest_pair(torch.randn(1, 3)) is None


def test_a_large_codebook_has_no_nearest_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.metrics.codebook.LARGEST", 4)
    assert "nearest_pair" not in metric_of(5).compute()
    assert "nearest_pair" in metric_of(5, 4).compute()


def test_a_collapsed_codebook_is_told() -> None:
    metric = metric_of(512, 512)
    codes = torch.stack([torch.zeros(64, 64).long(), torch.randint(512, (64, 64))], 1)
    metric.update(codes, coded(codes), {})
    (warning,) = metric.warnings()
    assert warning.startswith("the codes have collapsed: 1 of 512 entries is used at depth 0; try ")


def test_few_positions_are_no_collapse() -> None:
    """But they are too few to say how many entries are dead."""
    metric = metric_of(16, 512)
    codes = torch.randint(16, (2, 2, 8))
    metric.update(codes, coded(codes), {})
    (warning,) = metric.warnings()
    assert_names(warning, "few codes were counted: 16 … 512 entries … more examples")
    codes = torch.randint(512, (100, 2, 8)) % torch.tensor([16, 512])[:, None]
    metric.update(codes, coded(codes), {})
    assert metric.warnings() == []


def test_a_continuous_bottleneck_has_no_codebook(tmp_path: Path) -> None:
    metric = CodebookMetric(CodeSpec((8,), ()), GaussianQuantizer(4))
    metric.update(torch.zeros(2), coded(torch.zeros(2, 0, 8).long()), {})
    assert metric.compute() == {}
    assert metric.warnings() == []
    assert metric.plot(tmp_path) == []


@pytest.mark.long
@pytest.mark.few(2)
@pytest.mark.parametrize("sizes", [(512,), (1,), (16,) * 10, (8, 300)])
def test_the_picture_of_any_codebook(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    metric = metric_of(*sizes)
    codes = torch.stack([torch.randint(max(1, size // 3), (6, 20)) for size in sizes], 1)
    metric.update(codes, coded(codes), {})
    assert metric.plot(tmp_path) == [tmp_path / "codebook.png"]
    assert (tmp_path / "codebook.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_shows_shares_by_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[DepthUse]] = []
    monkeypatch.setattr("toolkit.metrics.codebook.plot_codebooks", lambda path, uses, error: drawn.append(uses))
    metric = metric_of(4, 2)
    codes = torch.tensor([[[3, 3, 3, 1], [0, 0, 0, 0]]])
    metric.update(codes, coded(codes), {})
    metric.plot(tmp_path)
    first, second = drawn[0]
    assert (first.shares, first.used) == ([0.75, 0.25, 0.0, 0.0], 2)
    assert (second.shares, second.usage, second.perplexity) == ([1.0, 0.0], 0.5, 1.0)


def test_what_a_pass_on_fake_tensors_computes_first_is_kept_for_real() -> None:
    """As toolkit check's step does, of which the histogram of a later training was all zeros."""
    code_spec = CodeSpec((3,), (7, 5))
    codes = torch.tensor([[[0, 6, 6], [4, 4, 4]]])
    with FakeTensorMode(allow_non_fake_inputs=True):
        histogram(torch.zeros(1, 2, 3, dtype=torch.int64), code_spec)
    assert histogram(codes, code_spec).tolist() == [1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 3]
