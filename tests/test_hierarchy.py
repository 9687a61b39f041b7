"""Codes at several levels, each of which conditions the finer ones."""

from __future__ import annotations

from contextlib import nullcontext
from math import log
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from toolkit.quantizer import Quantizer
from toolkit.quantizers.ema import EMAQuantizer
from toolkit.quantizers.fsq import FSQQuantizer
from toolkit.quantizers.gaussian import GaussianQuantizer
from toolkit.quantizers.hierarchy import HierarchyQuantizer
from toolkit.quantizers.multiscale import MultiscaleQuantizer
from toolkit.quantizers.residual import ResidualQuantizer
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.testing.quantizer import QuantizerSuite


def small_vq(dim: int) -> Quantizer:
    return VectorQuantizer(dim, codebook_size=6)


def small_ema(dim: int) -> Quantizer:
    return EMAQuantizer(dim, codebook_size=6)


def small_fsq(dim: int) -> Quantizer:
    return FSQQuantizer(levels=(4, 3))


def small_residual(dim: int) -> Quantizer:
    return ResidualQuantizer(dim, inner=small_vq, depth=2)


def hierarchy(dim: int, inner: Any = small_vq, **options: Any) -> HierarchyQuantizer:
    small: dict[str, Any] = {"codebook_dim": 4, "grid": (4, 4), "hidden": 6, "residual_blocks": 1}
    return HierarchyQuantizer(dim, inner=inner, **(small | options))


class TestHierarchyQuantizer(QuantizerSuite):
    grid: ClassVar = (4, 6)

    def make(self, dim: int) -> Quantizer:
        return hierarchy(dim, grid=(4, 6))


class TestHierarchyOfThreeLevels(QuantizerSuite):
    """Along time, by moving averages, with dropout."""

    grid: ClassVar = (12,)

    def make(self, dim: int) -> Quantizer:
        return hierarchy(dim, small_ema, grid=(12,), strides=(2, 3), dropout=0.5)


class TestHierarchyOfResiduals(QuantizerSuite):
    """Two codes at each position, in volumes."""

    grid: ClassVar = (2, 4, 2)

    def make(self, dim: int) -> Quantizer:
        return hierarchy(dim, small_residual, grid=(2, 4, 2), residual_blocks=0)


def latents() -> Tensor:
    return torch.randn(3, 5, 4, 4, generator=torch.Generator().manual_seed(0))


def test_the_top_is_decoded_and_seen_by_the_bottom() -> None:
    """The equations of the paper's algorithm 1."""
    quantizer, z = hierarchy(5, small_fsq).eval(), latents()
    quantized = quantizer(z)
    top = quantizer.stages[0](quantizer.proj_in[0](quantizer.down[0](z)))
    above = quantizer.up[0](quantizer.proj_out[0](top.z))
    bottom = quantizer.stages[1](quantizer.proj_in[1](torch.cat([z, above], 1)))
    assert torch.equal(quantized.codes, torch.cat([top.codes.flatten(2), bottom.codes.flatten(2)], 2))
    torch.testing.assert_close(quantized.z, quantizer.proj_out[1](torch.cat([bottom.z, above], 1)))
    torch.testing.assert_close(quantized.loss, top.loss + bottom.loss)
    torch.testing.assert_close(quantized.kl, torch.full((3,), (4 + 16) * log(12)))


def test_levels_are_from_coarse_to_fine() -> None:
    assert hierarchy(5, grid=(12,), strides=(2, 3)).code_grid((12,)) == ((2,), (6,), (12,))


def test_the_levels_have_tables_of_their_own_and_errors_of_their_own() -> None:
    quantizer = hierarchy(5).train()
    quantized = quantizer(latents())
    tables = [stage.codebook for stage in quantizer.stages]
    assert not torch.equal(*tables)
    errors = [quantized.metrics[f"error_at_level_{level}"] for level in (1, 2)]
    torch.testing.assert_close(quantized.metrics["quantization_error"], torch.stack(errors).mean())


def test_the_first_levels_are_a_lower_rate() -> None:
    quantizer = hierarchy(5, grid=(8,), strides=(2, 2)).eval()
    codes = quantizer(torch.randn(3, 5, 8)).codes
    embedded = [quantizer.embed(codes[:, :, :positions]) for positions in (2, 6, 14)]
    assert all(e.shape == (3, 5, 8) for e in embedded)
    assert not torch.allclose(embedded[0], embedded[1])
    with pytest.raises(ValueError, match="codes of 5 positions"):
        quantizer.embed(codes[:, :, :5])


def test_the_bottom_changes_what_is_near_and_the_top_what_is_far() -> None:
    quantizer = hierarchy(5, grid=(16,), strides=(4,), residual_blocks=0).eval()
    codes = quantizer(torch.randn(1, 5, 16)).codes
    changed = []
    for position in (0, 4):
        other = codes.clone()
        other[:, :, position] = (other[:, :, position] + 1) % 6
        changed.append(int((quantizer.embed(other) != quantizer.embed(codes)).any(1).sum()))
    assert changed[0] > 4
    assert changed[1] == 1


def test_dropped_levels_cost_nothing_and_are_those_that_embed_is_not_given() -> None:
    torch.manual_seed(0)
    quantizer, z = hierarchy(5, small_fsq, grid=(8,), strides=(2, 2), dropout=1.0), torch.randn(40, 5, 8)
    quantized = quantizer(z)
    paid = (quantized.kl / log(12)).round().int()
    assert set(paid.tolist()) == {2, 6, 14}
    for count in (2, 6, 14):
        of = paid == count
        torch.testing.assert_close(quantized.z[of], quantizer.embed(quantized.codes[of, :, :count]))
    assert (quantizer.eval()(z).kl == 14 * log(12)).all()


@pytest.mark.parametrize("draw", [HierarchyQuantizer.sample, pytest.param(HierarchyQuantizer.forward, id="broken")])
def test_a_sample_in_training_has_all_levels(draw: Any) -> None:
    """One drawn as training quantizes lacks some."""
    torch.manual_seed(0)
    quantizer, z = hierarchy(5, small_fsq, grid=(8,), strides=(2, 2), dropout=1.0), torch.randn(40, 5, 8)
    sampled = draw(quantizer, z)
    with nullcontext() if draw is HierarchyQuantizer.sample else pytest.raises(AssertionError):
        torch.testing.assert_close(sampled.z, quantizer.embed(sampled.codes))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 1.5}, "dropout=1.5: between 0 and 1"),
        ({"strides": ()}, r"strides=\[\]: one or more"),
        ({"strides": (3,)}, r"strides=\[3\].*\[4, 4\]"),
        ({"strides": (1,)}, r"strides=\[1\].*at least 2"),
        ({"grid": (4, 4, 4, 4)}, r"grid=\[4, 4, 4, 4\]: 1 to 3 axes"),
        ({"inner": GaussianQuantizer}, "continuous"),
        ({"inner": lambda dim: MultiscaleQuantizer(dim, grid=(2, 2), divisors=(2,))}, "grid of their own"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hierarchy(5, **options)


def test_other_latents_are_refused() -> None:
    with pytest.raises(ValueError, match=r"grid=\[4, 4\]: the latents' grid is \[8, 8\]"):
        hierarchy(5).code_grid((8, 8))
