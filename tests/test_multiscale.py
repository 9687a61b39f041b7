"""A residual over scales."""

from __future__ import annotations

from math import log, prod
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from toolkit.nn.resize import Resize
from toolkit.quantizer import Quantizer
from toolkit.quantizers.ema import EMAQuantizer
from toolkit.quantizers.fsq import FSQQuantizer
from toolkit.quantizers.multiscale import MultiscaleQuantizer
from toolkit.quantizers.projected import ProjectedQuantizer
from toolkit.quantizers.residual import ResidualQuantizer
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.testing.quantizer import QuantizerSuite


def small_vq(dim: int) -> Quantizer:
    return VectorQuantizer(dim, codebook_size=6)


def small_ema(dim: int) -> Quantizer:
    return EMAQuantizer(dim, codebook_size=6)


def small_projected(dim: int) -> Quantizer:
    return ProjectedQuantizer(dim, inner=small_vq, codebook_dim=3)


def small_residual(dim: int) -> Quantizer:
    return ResidualQuantizer(dim, inner=small_vq, depth=2)


def revived(dim: int) -> Quantizer:
    return VectorQuantizer(dim, codebook_size=6, dead_code_threshold=0.2, normalize=True, entropy=0.1)


class TestMultiscaleQuantizer(QuantizerSuite):
    """Scales that do not divide the grid."""

    grid: ClassVar = (4, 5)

    def make(self, dim: int) -> Quantizer:
        return MultiscaleQuantizer(dim, inner=small_vq, grid=(4, 5), scales=((1, 1), (2, 3)), convolutions=2)


class TestMultiscaleAlongTime(QuantizerSuite):
    """As in SNAC: strides in time, tables of their own in fewer dimensions."""

    grid: ClassVar = (8,)

    def make(self, dim: int) -> Quantizer:
        return MultiscaleQuantizer(
            dim,
            inner=small_projected,
            grid=(8,),
            divisors=(4, 2),
            shared=False,
            upsampling="nearest",
            convolutions=0,
            dropout=0.5,
        )


class TestMultiscaleOfVolumes(QuantizerSuite):
    grid: ClassVar = (2, 4, 2)

    def make(self, dim: int) -> Quantizer:
        return MultiscaleQuantizer(dim, inner=small_ema, grid=(2, 4, 2), divisors=(2,), upsampling="linear")


class TestMultiscaleOfResiduals(QuantizerSuite):
    """Two codes at each position."""

    grid: ClassVar = (4, 4)

    def make(self, dim: int) -> Quantizer:
        return MultiscaleQuantizer(dim, inner=small_residual, grid=(4, 4), divisors=(4, 2), shared=False)


class TestMultiscaleWithRevival(QuantizerSuite):
    grid: ClassVar = (4, 4)

    def make(self, dim: int) -> Quantizer:
        return MultiscaleQuantizer(dim, inner=revived, grid=(4, 4), divisors=(2,))


class TestProjectedMultiscale(QuantizerSuite):
    grid: ClassVar = (4, 4)

    def make(self, dim: int) -> Quantizer:
        def inner(dim: int) -> Quantizer:
            return MultiscaleQuantizer(dim, inner=small_vq, grid=(4, 4), divisors=(4, 2))

        return ProjectedQuantizer(dim, inner=inner, codebook_dim=4)


# -- from grid to grid


@pytest.mark.parametrize(
    ("source", "target", "upsampling", "mode"),
    [
        ((3,), (7,), "linear", "linear"),
        ((3, 4), (5, 4), "linear", "bilinear"),
        ((2, 3, 2), (4, 3, 5), "linear", "trilinear"),
        ((1, 3), (4, 8), "cubic", "bicubic"),
        ((2, 3), (4, 9), "nearest", "nearest"),
    ],
)
def test_interpolation_is_pytorchs(source: Any, target: Any, upsampling: Any, mode: str) -> None:
    z = torch.randn(2, 3, *source, dtype=torch.float64)
    resized = Resize(source, target, upsampling).double()(z)
    torch.testing.assert_close(resized, F.interpolate(z, target, mode=mode), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("source", "target"), [((7,), (3,)), ((5, 8), (2, 8)), ((4, 3, 5), (2, 1, 3))])
def test_pooling_is_pytorchs(source: Any, target: Any) -> None:
    z = torch.randn(2, 3, *source, dtype=torch.float64)
    pool = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[len(source) - 1]
    torch.testing.assert_close(Resize(source, target).double()(z), pool(z, target), atol=1e-6, rtol=1e-6)


# -- scales


def multiscale(inner: Any = small_vq, **options: Any) -> MultiscaleQuantizer:
    """Of three scales, with entries that are far from 0."""
    options = {"grid": (4, 4), "divisors": (4, 2), **options}
    quantizer = MultiscaleQuantizer(3, inner=inner, **options).double()
    quantizer(latents())
    with torch.no_grad():
        for parameter in quantizer.stages.parameters():
            parameter.normal_()
    return quantizer


def latents(seed: int = 0) -> Tensor:
    return torch.randn(4, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_each_scale_quantizes_what_is_left() -> None:
    quantizer, z = multiscale().eval(), latents()
    quantized, left, codes = quantizer(z), z, []
    for number, scale in enumerate([(1, 1), (2, 2), (4, 4)]):
        stage = quantizer.stages[0](F.adaptive_avg_pool2d(left, scale))
        codes.append(stage.codes.flatten(2))
        up = F.interpolate(stage.z, (4, 4), mode="bicubic")
        left = left - 0.5 * up - 0.5 * quantizer.convolutions[number].conv(up)
        error = quantized.metrics[f"error_after_scale_{number + 1}"]
        torch.testing.assert_close(error, left.square().sum(1).mean(), atol=1e-6, rtol=1e-6)
    assert torch.equal(quantized.codes, torch.cat(codes, 2))
    torch.testing.assert_close(quantized.z, z - left, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(quantized.metrics["quantization_error"], left.square().sum(1).mean())
    torch.testing.assert_close(quantized.kl, torch.full((4,), 21 * log(6)).double())


@pytest.mark.parametrize("shared", [True, False])
def test_the_first_scales_are_the_lower_rates(shared: bool) -> None:
    quantizer, z = multiscale(shared=shared).eval(), latents()
    quantized = quantizer(z)
    for number, positions in enumerate((1, 5, 21), 1):
        error = (z - quantizer.embed(quantized.codes[:, :, :positions])).square().sum(1).mean()
        torch.testing.assert_close(error, quantized.metrics[f"error_after_scale_{number}"])
    for positions in (0, 4, 20):
        with pytest.raises(ValueError, match=f"codes of {positions} positions: .*whole"):
            quantizer.embed(quantized.codes[:, :, :positions])


def test_the_decoders_gradient_passes_to_the_latents_whole() -> None:
    quantizer, z, gradient = multiscale(), latents().requires_grad_(), latents(1)
    quantizer(z).z.backward(gradient)
    assert z.grad is not None
    torch.testing.assert_close(z.grad, gradient)
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in quantizer.parameters())


def test_the_decoders_gradient_reaches_what_the_inner_quantizers_learn_from_it() -> None:
    quantizer, gradient = multiscale(small_projected, shared=False).eval(), latents(1)
    quantized = quantizer(latents())
    quantized.z.backward(gradient)
    outs = [stage.proj_out.weight for stage in quantizer.stages]
    expected = torch.autograd.grad(quantizer.embed(quantized.codes), outs, gradient)
    for weight, one in zip(outs, expected, strict=True):
        torch.testing.assert_close(weight.grad, one / len(quantizer.scales))


def test_no_decoders_gradient_is_turned_around() -> None:
    """Maps that pass on nothing give none to latents that are alike everywhere; a sum over scales gave its opposite."""
    quantizer = multiscale(small_projected, shared=False, convolutions=0)
    for stage in quantizer.stages:
        torch.nn.init.zeros_(stage.proj_out.weight)
    z, gradient = latents().requires_grad_(), latents(1)[..., :1, :1].expand_as(latents())
    quantizer(z).z.backward(gradient)
    assert z.grad is not None
    torch.testing.assert_close(z.grad.mean((2, 3)), torch.zeros_like(z.grad[:, :, 0, 0]))


def test_dropped_scales_add_nothing() -> None:
    quantizer, z = multiscale(dropout=1.0), latents()
    quantizer(z)
    torch.manual_seed(0)
    quantized = quantizer(z)
    positions = (1, 5, 21)
    embedded = [quantizer.embed(quantized.codes[:, :, :count]) for count in positions]
    matches = torch.stack([torch.isclose(e, quantized.z).flatten(1).all(1) for e in embedded])
    assert matches.any(0).all()
    kl = torch.tensor(positions)[matches.long().argmax(0)] * log(6)
    torch.testing.assert_close(quantized.kl, kl.double())


def test_a_shared_table_starts_at_what_all_scales_are_given() -> None:
    """Not at the few latents of the coarsest, of which a batch has one for each example."""
    torch.manual_seed(0)
    quantizer = MultiscaleQuantizer(3, inner=small_ema, grid=(4, 4), divisors=(4,))
    quantizer(torch.randn(4, 3, 4, 4))
    assert len(quantizer.stages[0].codebook.unique(dim=0)) == 6


def test_a_shared_table_learns_from_all_scales_once() -> None:
    torch.manual_seed(0)
    quantizer = MultiscaleQuantizer(3, inner=small_ema, grid=(4, 4), divisors=(4,))
    for seed in range(2):
        before = quantizer.stages[0].counts.clone()
        quantizer(latents(seed).float())
    taken = torch.bincount(quantizer.eval()(latents(1).float()).codes.flatten(), minlength=6)
    assert taken.sum() == 4 * 17
    assert (quantizer.stages[0].counts.sum() - (0.99 * before.sum() + 0.01 * 4 * 17)).abs() < 1e-4


def test_convolutions_are_shared_by_neighbors() -> None:
    quantizer = MultiscaleQuantizer(2, inner=small_vq, grid=(16,), divisors=(16, 8, 4, 2), convolutions=2)
    assert len(quantizer.convolutions) == 2
    assert len(MultiscaleQuantizer(2, inner=small_vq, grid=(4,), divisors=(2,), convolutions=9).convolutions) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"divisors": (3,)}, r"divisors=\[3\].*\[4, 4\]"),
        ({"divisors": (2, 4)}, r"divisors=\[2, 4\].*coarsest"),
        ({"scales": ((5, 4),)}, r"scales: \[5, 4\].*\[4, 4\]"),
        ({"scales": ((2,),)}, r"scales: \[2\].*2 axes"),
        ({"grid": (4, 4, 4, 4)}, r"grid=\[4, 4, 4, 4\]: 1 to 3 axes"),
        ({"inner": lambda dim: FSQQuantizer(levels=(4, 3))}, "channels.*projected"),
        ({"inner": lambda dim: MultiscaleQuantizer(dim, grid=(4, 4), divisors=(2,))}, r"grid"),
        ({"upsampling": "best"}, "upsampling=best: one of nearest"),
        ({"dropout": 2.0}, "dropout=2.0"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        multiscale(**options)


def test_other_latents_are_refused() -> None:
    with pytest.raises(ValueError, match=r"grid=\[4, 4\]: the latents' grid is \[8, 8\]"):
        multiscale().code_grid((8, 8))
    assert sum(map(prod, multiscale().code_grid((4, 4)))) == 21
