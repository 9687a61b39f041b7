"""Two quantizers of the same latents."""

from __future__ import annotations

from math import log

import pytest
import torch
from torch import Tensor
from toy.toy_scales import ScalesQuantizer

from toolkit.quantizer import Quantizer
from toolkit.quantizers.categorical import CategoricalQuantizer
from toolkit.quantizers.ema import EMAQuantizer
from toolkit.quantizers.gaussian import GaussianQuantizer
from toolkit.quantizers.projected import ProjectedQuantizer
from toolkit.quantizers.residual import ResidualQuantizer
from toolkit.quantizers.split import SplitQuantizer
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.testing.quantizer import QuantizerSuite


def small_vq(dim: int) -> VectorQuantizer:
    return VectorQuantizer(dim, codebook_size=6)


def small_ema(dim: int) -> EMAQuantizer:
    return EMAQuantizer(dim, codebook_size=7)


def small_categorical(dim: int) -> ProjectedQuantizer:
    return ProjectedQuantizer(dim, inner=lambda inner_dim: CategoricalQuantizer(inner_dim, codebook_size=5))


def small_residual(dim: int) -> ResidualQuantizer:
    return ResidualQuantizer(dim, inner=small_ema, depth=2)


def projected_ema(dim: int) -> ProjectedQuantizer:
    return ProjectedQuantizer(dim, inner=small_ema, codebook_dim=3, bias=False)


def projected_residual(dim: int) -> ProjectedQuantizer:
    return ProjectedQuantizer(dim, inner=small_residual, codebook_dim=3, bias=False)


class TestSplitQuantizer(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return SplitQuantizer(dim, first=small_vq, second=small_residual)


class TestSplitAsMimis(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return SplitQuantizer(dim, first=projected_ema, second=projected_residual)


class TestSplitOfCategoricals(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return SplitQuantizer(dim, first=small_categorical, second=small_categorical)


def latents(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_the_outputs_of_both_are_added() -> None:
    split = SplitQuantizer(6, first=projected_ema, second=projected_residual).double().eval()
    z = latents(3, 6, 4, 5)
    quantized, first, second = split(z), split.first(z), split.second(z)
    torch.testing.assert_close(quantized.z, first.z + second.z)
    assert torch.equal(quantized.codes, torch.cat([first.codes, second.codes], 1))
    torch.testing.assert_close(quantized.loss, first.loss + second.loss)
    torch.testing.assert_close(quantized.kl, torch.full((3,), 3 * 20 * log(7), dtype=torch.float64))
    error = (z - quantized.z).square().sum(1).mean()
    torch.testing.assert_close(quantized.metrics["quantization_error"], error)
    assert (split.depth, split.codebook_sizes) == (3, (7, 7, 7))


def test_the_first_depths_are_the_first_quantizers() -> None:
    split = SplitQuantizer(6, first=small_residual, second=small_residual).double().eval()
    codes = split(latents(3, 6, 5)).codes
    assert torch.equal(split.embed(codes[:, :2]), split.first.embed(codes[:, :2]))
    both = split.first.embed(codes[:, :2]) + split.second.embed(codes[:, 2:3])
    torch.testing.assert_close(split.embed(codes[:, :3]), both)
    assert torch.equal(split.embed(codes[:, :1]), split.first.embed(codes[:, :1]))


def test_the_decoders_gradient_passes_once() -> None:
    split = SplitQuantizer(4, first=small_vq, second=small_vq).double()
    z, upstream = latents(2, 4, 6).requires_grad_(), latents(2, 4, 6)
    (split(z).z * upstream).sum().backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad, upstream)


def test_each_commits_by_itself() -> None:
    """Neither is given what the other one leaves."""
    split = SplitQuantizer(4, first=small_vq, second=small_vq).double().eval()
    z = latents(2, 4, 6).requires_grad_()
    (together,) = torch.autograd.grad(split(z).loss.sum(), z)
    alone = [torch.autograd.grad(part(z).loss.sum(), z)[0] for part in (split.first, split.second)]
    torch.testing.assert_close(together, alone[0] + alone[1])


def test_what_both_have_it_has() -> None:
    assert SplitQuantizer(4, first=small_categorical, second=small_categorical).has_posterior
    assert not SplitQuantizer(4, first=small_categorical, second=small_vq).has_posterior


def test_a_quantizer_of_other_channels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"second takes 3 .* have 6.*quantizer\.second\.name=projected"):
        SplitQuantizer(6, second=lambda _: small_vq(3))


def test_a_continuous_bottleneck_is_refused() -> None:
    with pytest.raises(ValueError, match="continuous"):
        SplitQuantizer(6, first=GaussianQuantizer)


def test_codes_on_two_grids_are_refused() -> None:
    split = SplitQuantizer(4, first=small_vq, second=lambda dim: ScalesQuantizer(dim, scales=(1, 2, 4)))
    with pytest.raises(ValueError, match="grids"):
        split.code_grid((4, 4))
