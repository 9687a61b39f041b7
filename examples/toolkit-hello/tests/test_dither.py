"""The quantizer: its kind's laws, and the equation of stochastic rounding."""

from __future__ import annotations

import pytest
import torch

from toolkit import Quantizer
from toolkit.testing import QuantizerSuite
from toolkit_hello.dither import DitherQuantizer


class TestDitherQuantizer(QuantizerSuite):
    learns = False

    def make(self, dim: int) -> Quantizer:
        return DitherQuantizer(levels=(4, 2, 5))


def test_nothing_is_lost_on_average() -> None:
    """E[z_q] = 2 sigmoid(z) - 1, of which the nearest level is up to half a step away."""
    quantizer, n = DitherQuantizer(levels=(3, 4)).double().train(), 40_000
    z = torch.tensor([[-2.0, 0.3], [0.7, 1.4], [40.0, -40.0]]).double()
    expected = 2 * z.sigmoid() - 1
    mean = quantizer(z.repeat(n, 1)[:, :, None]).z.view(n, 3, 2).mean(0)
    torch.testing.assert_close(mean, expected, atol=4 / 2 / n**0.5, rtol=0)
    nearest = quantizer.eval()(z[:, :, None]).z[:, :, 0]
    assert (nearest - expected).abs().max() > 0.1


def test_a_level_is_one_of_the_two_beside_it() -> None:
    quantizer = DitherQuantizer(levels=(6,)).double().train()
    z = torch.randn(500, 1, 1).double()
    assert ((quantizer(z).z - (2 * z.sigmoid() - 1)).abs() < 2 / 5).all()


def test_the_largest_latents_stay_on_the_last_level() -> None:
    """In float32, 4095 and a number a little below 1 add up to 4096, which is no level."""
    quantizer = DitherQuantizer(levels=(4096,)).train()
    assert quantizer(torch.full((1 << 20, 1, 1), 100.0)).codes.max() == 4095


@pytest.mark.parametrize(("levels", "said"), [((), "at least one channel"), ((1, 4), "2 levels"), ((999,) * 3, "most")])
def test_levels_that_make_no_sense(levels: tuple[int, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DitherQuantizer(levels=levels)
