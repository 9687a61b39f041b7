"""The objectives of the core, each with its equation."""

from __future__ import annotations

from math import log, pi

import pytest
import torch

from toolkit.objective import Objective
from toolkit.objectives.elbo import ELBO
from toolkit.quantizers.ema import EMAQuantizer
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.spec import DataSpec
from toolkit.testing.objective import ObjectiveSuite
from toolkit.testing.parts import PointDecoder, PointEncoder, point_autoencoder, random_data

LEVELS = DataSpec(2, (6,), levels=5)


class TestELBO(ObjectiveSuite):
    def make(self, data: DataSpec) -> Objective:
        return ELBO()


def test_the_loss_is_the_sum_of_its_terms() -> None:
    autoencoder, x = point_autoencoder(LEVELS), random_data(LEVELS, 5)
    made = ELBO()(autoencoder, x, {})
    assert set(made.terms) == {"nll", "kl", "quantizer"}
    torch.testing.assert_close(made.loss, made.terms["nll"] + made.terms["kl"] + made.terms["quantizer"])
    torch.testing.assert_close(made.terms["nll"], -made.likelihood.log_prob(x).mean())
    torch.testing.assert_close(made.terms["quantizer"], made.quantized.loss.mean())
    torch.testing.assert_close(made.terms["kl"], torch.tensor(6 * log(8)))


def test_the_loss_is_the_mean_over_examples() -> None:
    autoencoder, x = point_autoencoder(LEVELS), random_data(LEVELS, 5)
    losses = [ELBO()(autoencoder, one, {}).loss for one in x.split(1)]
    torch.testing.assert_close(ELBO()(autoencoder, x, {}).loss, torch.stack(losses).mean())


def test_the_bound_is_the_loss_without_the_quantizers_own() -> None:
    autoencoder, x = point_autoencoder(LEVELS).eval(), random_data(LEVELS, 5)
    made, bound = ELBO()(autoencoder, x, {}), ELBO().bound(autoencoder, x, {})
    torch.testing.assert_close(bound.data_nats.mean(), made.terms["nll"])
    torch.testing.assert_close(bound.code_nats.mean(), made.terms["kl"])
    torch.testing.assert_close((bound.data_nats + bound.code_nats).mean() + made.terms["quantizer"], made.loss)


def test_the_codebook_learns_only_from_the_quantizers_term() -> None:
    autoencoder, x = point_autoencoder(LEVELS), random_data(LEVELS, 5)
    made = ELBO()(autoencoder, x, {})
    codebook = autoencoder.quantizer.codebook
    assert torch.autograd.grad(made.terms["nll"], codebook, retain_graph=True, allow_unused=True) == (None,)
    assert torch.autograd.grad(made.terms["quantizer"], codebook)[0].any()


@pytest.mark.parametrize("make", [VectorQuantizer, EMAQuantizer])
def test_a_mean_square_loss_is_this_one_in_other_units(
    make: type[VectorQuantizer] | type[EMAQuantizer],
) -> None:
    """The public CIFAR-10 example minimises MSE / variance + 0.25 x mean-square commitment at dim 64.

    One of its units is 3 x 32 x 32 / 2 = 1536 nats, and its 0.25 is 1536 x 0.25 / 64 = 6.0 of the paper's beta.
    """
    data, variance = DataSpec(3, (32, 32), variance=0.06), 0.06
    quantizer = make(64, codebook_size=16, commitment=6.0, data_init=False).double()
    autoencoder = _normal_autoencoder(data, quantizer).double().eval()
    x = random_data(data, 3).double()
    made = ELBO()(autoencoder, x, {})

    z = autoencoder.encode(x)
    e = autoencoder.embed(made.quantized.codes).detach()
    mean = autoencoder.decode(z + (e - z).detach(), {}).mean
    assert mean is not None
    theirs = (x - mean).square().mean() / variance + 0.25 * (z - e).square().mean()
    nats = 1536 * theirs + 1536 * log(2 * pi * variance) + 1024 * log(16)
    own = 1536 * (autoencoder.embed(made.quantized.codes) - z.detach()).square().mean() / 24
    torch.testing.assert_close(made.loss, nats + (own if make is VectorQuantizer else 0))

    shared = [*autoencoder.encoder.parameters(), *autoencoder.decoder.linear.parameters()]
    ours = torch.autograd.grad(made.loss, shared)
    for gradient, expected in zip(ours, torch.autograd.grad(1536 * theirs, shared), strict=True):
        torch.testing.assert_close(gradient, expected)


def _normal_autoencoder(data: DataSpec, quantizer):  # type: ignore[no-untyped-def]
    from toolkit.autoencoder import Autoencoder
    from toolkit.likelihoods.normal import NormalLikelihood

    return Autoencoder(data, PointEncoder(data, 64), quantizer, PointDecoder(64, NormalLikelihood(data)))
