"""The continuous bottleneck."""

from __future__ import annotations

import torch
from torch.distributions import Normal, kl_divergence

from toolkit.quantizer import Quantizer
from toolkit.quantizers.gaussian import LARGEST, GaussianQuantizer
from toolkit.testing.quantizer import QuantizerSuite


class TestGaussianQuantizer(QuantizerSuite):
    learns = False

    def make(self, dim: int) -> Quantizer:
        return GaussianQuantizer(dim)


def moments(z: torch.Tensor) -> Normal:
    mean, raw = z.chunk(2, 1)
    return Normal(mean, (LARGEST * (raw / LARGEST).tanh() / 2).exp())


def test_the_kl_is_that_to_the_unit_normal() -> None:
    quantizer, z = GaussianQuantizer(3), torch.randn(4, 6, 2, 5, dtype=torch.float64)
    expected = kl_divergence(moments(z), Normal(0, 1)).flatten(1).sum(1)
    for each in (quantizer.train(), quantizer.eval()):
        torch.testing.assert_close(each(z).kl, expected)
        torch.testing.assert_close(each.sample(z).kl, expected)
    assert quantizer(z).loss.tolist() == [0] * 4


def test_the_kl_of_the_unit_normal_is_zero() -> None:
    assert GaussianQuantizer(3)(torch.zeros(2, 6, 5)).kl.tolist() == [0, 0]


def test_draws_have_the_encoders_moments() -> None:
    z = torch.randn(1, 6, 1, dtype=torch.float64)
    many = z.expand(40_000, -1, -1)
    expected = moments(z)
    quantizer = GaussianQuantizer(3)
    for drawn in (quantizer.train()(many).z, quantizer.eval().sample(many).z):
        assert ((drawn.mean(0) - expected.mean[0]).abs() < 5 * expected.stddev[0] / 200).all()
        assert ((drawn.std(0) / expected.stddev[0] - 1).abs() < 5 / (2 * 40_000) ** 0.5).all()


def test_eval_gives_the_mean() -> None:
    z = torch.randn(2, 6, 5)
    assert torch.equal(GaussianQuantizer(3).eval()(z).z, z[:, :3])


def test_a_draw_is_reparametrised() -> None:
    """The same noise at other moments: z moves with the mean, and scales with the deviation."""
    z = torch.zeros(2, 2, 5, dtype=torch.float64).requires_grad_()
    made = GaussianQuantizer(1)(z)
    made.z.sum().backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad[:, :1], torch.ones(2, 1, 5).double())
    torch.testing.assert_close(z.grad[:, 1:], made.z.detach() / 2)


def test_no_log_variance_overflows() -> None:
    z = (1e6 * torch.randn(2, 6, 5)).requires_grad_()
    made = GaussianQuantizer(3)(z)
    (made.z.mean() + made.kl.mean()).backward()
    assert made.kl.isfinite().all()
    assert z.grad is not None
    assert z.grad.isfinite().all()
