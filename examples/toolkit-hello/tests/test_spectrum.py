"""The metric: its kind's laws, and distances that can be said beforehand."""

from __future__ import annotations

from math import sqrt

import pytest
import torch

from toolkit import Autoencoder, DataSpec, Metric
from toolkit.testing import MetricSuite
from toolkit_hello.spectrum import SpectrumMetric, log_spectral_distance


class TestSpectrumMetric(MetricSuite):
    def make(self, model: Autoencoder) -> Metric:
        return SpectrumMetric(model.data)


@pytest.mark.parametrize("axes", [(16,), (4, 6), (2, 3, 4)], ids=str)
def test_half_as_loud_is_six_decibels_away(axes: tuple[int, ...]) -> None:
    x = torch.zeros(2, 3, *axes)
    x.flatten(2)[:, :, 5] = 1  # an impulse has all frequencies alike
    torch.testing.assert_close(log_spectral_distance(x, x), torch.zeros(2, 3).double())
    torch.testing.assert_close(log_spectral_distance(x, x / 2), torch.full((2, 3), 6.0206).double(), atol=1e-4, rtol=0)


def test_what_is_missing_counts_forty_decibels() -> None:
    """A pair of sines of which one is lost: 2 of 16 frequencies are 40 dB away, and where they stand is no matter."""
    t = 2 * torch.pi * torch.arange(16) / 16
    both = (t.sin() + (3 * t).sin())[None, None].double()
    for lost in (t.sin(), (3 * t).sin()):
        distance = log_spectral_distance(both, lost[None, None].double())
        assert distance.item() == pytest.approx(40 * sqrt(2 / 16))


def test_codes_have_no_spectrum() -> None:
    with pytest.raises(ValueError, match="codes as data have no order"):
        SpectrumMetric(DataSpec(1, (8,), 16, ordered=False))
