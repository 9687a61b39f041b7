"""A quantizer between two maps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

from toolkit.quantizer import Quantizer
from toolkit.quantizers.categorical import CategoricalQuantizer
from toolkit.quantizers.fsq import FSQQuantizer
from toolkit.quantizers.gaussian import GaussianQuantizer
from toolkit.quantizers.product import ProductQuantizer
from toolkit.quantizers.projected import ProjectedQuantizer
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.testing.quantizer import QuantizerSuite


def small_vq(dim: int) -> VectorQuantizer:
    return VectorQuantizer(dim, codebook_size=6)


def small_fsq(dim: int) -> FSQQuantizer:
    return FSQQuantizer(levels=(4, 3, 5))


def small_categorical(dim: int) -> CategoricalQuantizer:
    return CategoricalQuantizer(dim, codebook_size=5)


def small_product(dim: int) -> ProductQuantizer:
    return ProductQuantizer(dim, inner=small_vq, groups=2)


class TestProjectedVQ(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return ProjectedQuantizer(dim, inner=small_vq, codebook_dim=3)


class TestProjectedFSQ(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return ProjectedQuantizer(dim, inner=small_fsq)


class TestProjectedCategorical(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return ProjectedQuantizer(dim, inner=small_categorical, codebook_dim=3)


class TestProjectedProduct(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return ProjectedQuantizer(dim, inner=small_product, codebook_dim=6)


def at_positions(layer: torch.nn.Linear, z: Tensor) -> Tensor:
    return linear(z.movedim(1, -1), layer.weight, layer.bias).movedim(-1, 1)


def test_it_is_the_inner_quantizer_between_two_maps() -> None:
    quantizer = ProjectedQuantizer(8, inner=small_vq, codebook_dim=3).double().eval()
    z = torch.randn(2, 8, 3, 4, dtype=torch.float64)
    made, inner = quantizer(z), quantizer.inner(at_positions(quantizer.proj_in, z))
    torch.testing.assert_close(made.z, at_positions(quantizer.proj_out, inner.z))
    for name in ("codes", "loss", "kl"):
        torch.testing.assert_close(getattr(made, name), getattr(inner, name))
    assert made.metrics == inner.metrics


def test_each_map_gets_its_gradient() -> None:
    """The decoder's reaches both maps and the latents; the commitment's the map into the codebook's space alone."""
    quantizer = ProjectedQuantizer(8, inner=small_vq, codebook_dim=3)
    z = torch.randn(2, 8, 5, requires_grad=True)
    made = quantizer(z)
    made.loss.sum().backward(retain_graph=True)
    assert quantizer.proj_in.weight.grad is not None
    assert quantizer.proj_in.weight.grad.any()
    assert quantizer.proj_out.weight.grad is None
    assert z.grad is not None
    assert z.grad.any()
    quantizer.zero_grad()
    made.z.square().sum().backward()
    for layer in (quantizer.proj_in, quantizer.proj_out):
        assert layer.weight.grad is not None
        assert layer.weight.grad.any()


def test_maps_without_bias_take_nothing_to_nothing() -> None:
    quantizer = ProjectedQuantizer(8, inner=small_fsq, bias=False)
    assert [name for name, _ in quantizer.named_parameters()] == ["proj_in.weight", "proj_out.weight"]
    for layer in (quantizer.proj_in, quantizer.proj_out):
        assert not layer(torch.zeros(layer.in_features)).any()


def test_its_maps_stay_single_under_autocast() -> None:
    quantizer, z = ProjectedQuantizer(8, inner=small_fsq).eval(), torch.randn(2, 8, 64)
    plain = quantizer(z)
    with torch.autocast("cpu", torch.bfloat16):
        made = quantizer(z)
        embedded = quantizer.embed(made.codes)
    assert torch.equal(made.codes, plain.codes)
    assert made.z.dtype == embedded.dtype == torch.float32
    torch.testing.assert_close(embedded, plain.z)


def test_what_has_a_posterior_keeps_it() -> None:
    assert ProjectedQuantizer(8, inner=small_categorical).has_posterior
    assert not ProjectedQuantizer(8, inner=small_vq).has_posterior


def test_a_dimension_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="codebook_dim=0"):
        ProjectedQuantizer(8, codebook_dim=0)


def test_a_continuous_bottleneck_is_refused() -> None:
    """Samples are drawn from the unit normal and decoded as they are: no map would stand between."""
    with pytest.raises(ValueError, match="continuous"):
        ProjectedQuantizer(8, inner=GaussianQuantizer)
