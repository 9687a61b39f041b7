"""Quantizers side by side."""

from __future__ import annotations

from math import log

import pytest
import torch
from torch import Tensor

from toolkit.quantizer import Quantizer
from toolkit.quantizers.ema import EMAQuantizer
from toolkit.quantizers.product import ProductQuantizer
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.testing.quantizer import QuantizerSuite


class TestProductQuantizer(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return ProductQuantizer(dim, inner=small_vq)


class TestProductOfEMA(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return ProductQuantizer(dim, inner=small_ema, groups=4)


class TestSharedProduct(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return ProductQuantizer(dim, inner=small_ema, shared=True)


def small_vq(dim: int) -> VectorQuantizer:
    return VectorQuantizer(dim, codebook_size=6)


def small_ema(dim: int) -> EMAQuantizer:
    return EMAQuantizer(dim, codebook_size=6)


def latents(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_groups_are_separate_quantizers() -> None:
    product = ProductQuantizer(10, inner=small_vq, groups=5).double().eval()
    z = latents(3, 10, 4)
    made = product(z)
    parts = [part(z[:, 2 * g : 2 * g + 2]) for g, part in enumerate(product.inner)]
    assert torch.equal(made.codes, torch.cat([part.codes for part in parts], 1))
    assert torch.equal(made.z, torch.cat([part.z for part in parts], 1))
    torch.testing.assert_close(made.loss, sum(part.loss for part in parts))
    torch.testing.assert_close(made.kl, torch.full((3,), 5 * 4 * log(6), dtype=torch.float64))


def test_ten_groups_are_the_papers_cifar_latents() -> None:
    product = ProductQuantizer(640, groups=10)
    assert (product.depth, product.codebook_sizes) == (10, (512,) * 10)
    assert product(torch.randn(2, 640, 8, 8)).codes.shape == (2, 10, 8, 8)


def test_missing_groups_embed_as_zeros() -> None:
    product = ProductQuantizer(6, inner=small_vq, groups=3).eval()
    made = product(torch.randn(2, 6, 4))
    assert torch.equal(product.embed(made.codes[:, :2])[:, :4], made.z[:, :4])
    assert not product.embed(made.codes[:, :2])[:, 4:].any()


def placed_ema(dim: int) -> EMAQuantizer:
    """One that draws nothing."""
    quantizer = EMAQuantizer(dim, codebook_size=4, dead_code_threshold=0.0, init="random").double()
    quantizer.codebook.normal_()
    quantizer.sums.copy_(quantizer.codebook)
    return quantizer


def test_shared_groups_take_one_step_of_one_table() -> None:
    shared = ProductQuantizer(6, inner=placed_ema, groups=3, shared=True)
    assert len(list(shared.inner)) == 1
    alone = placed_ema(2)
    alone.load_state_dict(shared.inner[0].state_dict())
    z = latents(4, 6, 5)
    made, plain = shared(z), alone(torch.cat(z.chunk(3, 1)))
    assert torch.equal(made.codes, torch.cat(plain.codes.chunk(3), 1))
    assert torch.equal(made.z, torch.cat(plain.z.chunk(3), 1))
    torch.testing.assert_close(made.loss, plain.loss.view(3, 4).sum(0))
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(shared.inner[0].state_dict()[name], value)


@pytest.mark.parametrize("groups", [0, 3])
def test_groups_that_do_not_divide_are_refused(groups: int) -> None:
    with pytest.raises(ValueError, match=f"dim=8 .* groups={groups}"):
        ProductQuantizer(8, groups=groups)
