"""The encoders of the core."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from toolkit.encoder import Encoder
from toolkit.encoders.conv import ConvEncoder
from toolkit.encoders.patch import PatchEncoder
from toolkit.encoders.pool import PoolEncoder
from toolkit.spec import DataSpec
from toolkit.testing.encoder import EncoderSuite


class PoolSuite(EncoderSuite):
    data: ClassVar[DataSpec]

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return PoolEncoder(data, dim, hidden=8)


class TestPoolEncoderOfOneAxis(PoolSuite):
    data = DataSpec(1, (20,))


class TestPoolEncoderOfTwoAxes(PoolSuite):
    data = DataSpec(3, (8, 12), levels=256)


class TestPoolEncoderOfThreeAxes(PoolSuite):
    data = DataSpec(2, (3, 5, 4), levels=4)


class TestPoolEncoderOfCodes(PoolSuite):
    data = DataSpec(2, (8, 8), levels=16, ordered=False)


class PatchSuite(EncoderSuite):
    data: ClassVar[DataSpec]

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return PatchEncoder(data, dim, patch=2, hidden=16)


class TestPatchEncoderOfOneAxis(PatchSuite):
    data = DataSpec(1, (12,))


class TestPatchEncoderOfTwoAxes(PatchSuite):
    data = DataSpec(3, (8, 12), levels=256)


class TestPatchEncoderOfThreeAxes(PatchSuite):
    data = DataSpec(2, (6, 8, 6), levels=4)


class TestPatchEncoderOfFourAxes(PatchSuite):
    """Patches need no convolution, which knows three axes at most."""

    data = DataSpec(1, (6, 6, 8, 6), levels=4)


class ConvSuite(EncoderSuite):
    data: ClassVar[DataSpec]
    strides: tuple[int, ...] = (2,)

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return ConvEncoder(data, dim, hidden=4, residual_blocks=1, residual_hidden=3, strides=self.strides)


class TestConvEncoderOfOneAxis(ConvSuite):
    data, strides = DataSpec(1, (72,)), (2, 3)


class TestConvEncoderOfTwoAxes(ConvSuite):
    data = DataSpec(3, (24, 28), levels=256)


class TestConvEncoderOfThreeAxes(ConvSuite):
    data = DataSpec(2, (16, 18, 20), levels=4)


class TestConvEncoderWithoutStrides(ConvSuite):
    data, strides = DataSpec(1, (12, 12)), ()


@pytest.mark.parametrize("axes", [(1, 1), (8, 8), (21, 21), (3, 16)], ids=str)
def test_the_grid_is_of_ones(axes: tuple[int, int]) -> None:
    encoder = PoolEncoder(DataSpec(1, axes, 512, ordered=False), 6, hidden=4)
    assert encoder(torch.zeros(2, 1, *axes).long()).shape == (2, 6, 1, 1)


def test_it_knows_where_things_stand() -> None:
    """The same code at another place is another thing: it is no average over places."""
    torch.manual_seed(0)
    encoder = PoolEncoder(DataSpec(1, (8, 8), 4, ordered=False), 6, hidden=8).eval()
    here, there = torch.zeros(2, 1, 1, 8, 8).long()
    here[..., 1, 1], there[..., 6, 5] = 1, 1
    assert (encoder(here) - encoder(there)).abs().amax() > 1e-3


def test_levels_without_order_are_not_scaled() -> None:
    """Relabelling codes, and the table's rows with them, changes nothing."""
    torch.manual_seed(0)
    encoder = PoolEncoder(DataSpec(1, (4, 4), 5, ordered=False), 6, hidden=8).eval()
    x, order = torch.randint(5, (3, 1, 4, 4)), torch.tensor([3, 0, 4, 1, 2])
    before = encoder(x)
    assert encoder.tables is not None
    with torch.no_grad():
        table = encoder.tables[0].weight
        table[order] = table.clone()  # type: ignore[index]
    torch.testing.assert_close(encoder(order[x]), before)


@torch.no_grad()
def test_a_patchs_latent_is_a_network_of_that_patch_alone() -> None:
    """z = out(relu(inward(patch))), the patch flattened channels first."""
    torch.manual_seed(0)
    encoder = PatchEncoder(DataSpec(2, (6, 9)), 5, patch=3, hidden=7)
    x = torch.rand(4, 2, 6, 9)
    patch = x[:, :, 3:6, 6:9].flatten(1)
    torch.testing.assert_close(encoder(x)[:, :, 1, 2], encoder.out(encoder.proj_in(patch).relu()))


@torch.no_grad()
def test_strided_convolutions_have_a_relu_between_them() -> None:
    """z = out(relu(second(relu(first(x))))) without residual blocks."""
    torch.manual_seed(0)
    encoder = ConvEncoder(DataSpec(1, (8, 8)), 3, hidden=4, residual_blocks=0)
    x = torch.rand(2, 1, 8, 8)
    first, second = encoder.down[0], encoder.down[2]
    torch.testing.assert_close(encoder(x), encoder.out(second(first(x).relu()).relu()))


@pytest.mark.parametrize("patch", [0, 3, 16])
def test_patches_that_do_not_cover_the_axes_are_refused(patch: int) -> None:
    with pytest.raises(ValueError, match=rf"patch={patch}: (at least 1|.*axes \(12, 8\))"):
        PatchEncoder(DataSpec(1, (12, 8)), 4, patch=patch)


def test_too_many_axes_are_refused() -> None:
    with pytest.raises(ValueError, match="works on 1 to 3 axes, but this data has 4"):
        PoolEncoder(DataSpec(1, (2, 2, 2, 2), 4), 4)
    with pytest.raises(ValueError, match="works on 1 to 3 axes, but this data has 4"):
        ConvEncoder(DataSpec(1, (4, 4, 4, 4)), 4)


def test_strides_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"strides=\[2, 0\]: each at least 1"):
        ConvEncoder(DataSpec(1, (8, 8)), 4, strides=(2, 0))
