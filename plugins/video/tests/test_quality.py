"""The metric of clips."""

from __future__ import annotations

from math import log10
from pathlib import Path

import pytest
import torch
from torch import Tensor

from toolkit import Autoencoder, Bound, DataSpec, Metric
from toolkit.likelihoods.normal import NormalLikelihood
from toolkit.quantizer import Quantized
from toolkit.testing.metric import MetricSuite
from toolkit_video.quality import LARGEST, QualityMetric, decay

DATA = DataSpec(1, (5, 12, 12))


class TestQualityMetric(MetricSuite):
    data = DataSpec(3, (4, 12, 16), levels=7)

    def make(self, model: Autoencoder) -> Metric:
        return QualityMetric(model.data)


@pytest.mark.slow
class TestOfTinySingleFrames(MetricSuite):
    data = DataSpec(1, (1, 6, 6))

    def make(self, model: Autoencoder) -> Metric:
        return QualityMetric(model.data)


def judged(x: Tensor, made: Tensor) -> dict[str, float]:
    """The figures of clips made so, in two batches."""
    metric, none = QualityMetric(DATA), torch.zeros(1)
    for part, again in zip(x.split(1), made.split(1), strict=True):
        likelihood = NormalLikelihood(DATA, scale=1.0)(again)
        metric.update(part, Bound(none, none, likelihood, Quantized(none, none, none, none, {})), {})
    return metric.compute()


def clips() -> Tensor:
    return torch.rand(2, *DATA.shape) * 1.8 - 0.9


def test_the_same_clips_are_perfect() -> None:
    x = clips()
    metrics = judged(x, x)
    assert metrics["frame_psnr"] == LARGEST
    assert metrics["frame_ssim"] == pytest.approx(1)
    assert (metrics["frame_psnr_decay"], metrics["temporal_error"]) == (0, 0)


def test_what_stands_still_has_a_temporal_error_of_one() -> None:
    x = clips()
    metrics = judged(x, x[:, :, :1].expand_as(x))
    assert metrics["temporal_error"] == pytest.approx(1)
    assert metrics["frame_psnr_decay"] > 0
    assert metrics["frame_ssim_decay"] > 0


def test_a_constant_error_has_its_psnr_and_moves_right() -> None:
    x = clips().clamp(-0.8, 0.8)
    metrics = judged(x, x + 0.1)
    assert metrics["frame_psnr"] == pytest.approx(10 * log10(4 / 0.01), rel=1e-4)
    assert metrics["frame_psnr_decay"] == pytest.approx(0, abs=1e-3)
    assert metrics["temporal_error"] == pytest.approx(0, abs=1e-6)


def test_an_error_that_doubles_falls_by_six_decibels_a_frame() -> None:
    x = torch.zeros(2, *DATA.shape)
    errors = 0.01 * 2.0 ** torch.arange(5)
    metrics = judged(x, x + errors[:, None, None])
    assert metrics["frame_psnr_decay"] == pytest.approx(4 * 20 * log10(2), rel=1e-4)
    assert "temporal_error" not in metrics


def test_decay_is_that_of_the_nearest_line() -> None:
    assert decay(torch.tensor([5.0, 4.0, 3.0, 2.0])) == pytest.approx(3)
    assert decay(torch.tensor([1.0, 3.0, 2.0]).double()) == pytest.approx(-1)


def test_a_picture_of_the_curves(tmp_path: Path) -> None:
    metric = QualityMetric(DATA)
    assert metric.plot(tmp_path) == []
    none = torch.zeros(1)
    x = clips()
    bound = Bound(none, none, NormalLikelihood(DATA, scale=1.0)(x * 0.9), Quantized(none, none, none, none, {}))
    metric.update(x, bound, {})
    assert [path.name for path in metric.plot(tmp_path)] == ["frames.png"]


def test_data_without_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="three axes; this data has 2"):
        QualityMetric(DataSpec(3, (8, 8)))
