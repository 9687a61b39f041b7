"""The discriminators of the core."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn

from toolkit import registry
from toolkit.discriminator import Discriminator
from toolkit.discriminators.both import BothDiscriminator
from toolkit.discriminators.patch import PatchDiscriminator
from toolkit.discriminators.unet import UNetDiscriminator
from toolkit.nn.critic_conv import SpectralConv
from toolkit.registry import CORE
from toolkit.spec import DataSpec
from toolkit.testing.discriminator import DiscriminatorSuite


class PatchSuite(DiscriminatorSuite):
    data: ClassVar[DataSpec]
    norm: ClassVar[str] = "group"

    def make(self, data: DataSpec) -> Discriminator:
        return PatchDiscriminator(data, width=8, layers=2, norm=self.norm)  # type: ignore[arg-type]

    @pytest.mark.slow
    def test_it_compiles_whole(self) -> None:
        super().test_it_compiles_whole()


class TestPatchOfOneAxis(PatchSuite):
    data = DataSpec(1, (21,))


class TestPatchOfTwoAxes(PatchSuite):
    data, norm = DataSpec(3, (16, 12), levels=256), "spectral"


class TestPatchOfThreeAxes(PatchSuite):
    data, norm = DataSpec(2, (3, 8, 7), levels=4), "none"


class TestPatchOfAFewPositions(PatchSuite):
    data = DataSpec(1, (2,))


class UNetSuite(DiscriminatorSuite):
    data: ClassVar[DataSpec]
    norm: ClassVar[str] = "spectral"

    def make(self, data: DataSpec) -> Discriminator:
        return UNetDiscriminator(data, width=4, layers=2, norm=self.norm)  # type: ignore[arg-type]

    @pytest.mark.slow
    def test_it_compiles_whole(self) -> None:
        super().test_it_compiles_whole()


class TestUNetOfOneAxis(UNetSuite):
    data = DataSpec(1, (21,))


class TestUNetOfTwoAxes(UNetSuite):
    data, norm = DataSpec(3, (16, 12), levels=256), "group"


class TestUNetOfThreeAxes(UNetSuite):
    data = DataSpec(2, (3, 8, 7), levels=4)


class BothSuite(DiscriminatorSuite):
    data = DataSpec(1, (8, 8))

    def make(self, data: DataSpec) -> Discriminator:
        return BothDiscriminator(
            first=lambda: PatchDiscriminator(data, width=4, layers=1),
            second=lambda: UNetDiscriminator(data, width=4, layers=1),
        )


class TestBoth(BothSuite):
    """The judgements of the first, then those of the second."""

    def test_it_judges_as_they_do(self) -> None:
        part, x = self.part(), self._x(2)
        alone = [*part.first(x, {}), *part.second(x, {})]  # type: ignore[operator]
        for judgement, expected in zip(part(x, {}), alone, strict=True):
            assert judgement.logits.equal(expected.logits)


ROWS = {PatchDiscriminator: PatchSuite, UNetDiscriminator: UNetSuite, BothDiscriminator: BothSuite}


def test_every_discriminator_of_the_core_has_a_suite() -> None:
    own = [one for one in registry.registrations("discriminator") if one.distribution == CORE]
    assert {registry.load("discriminator", one.name) for one in own} == set(ROWS)


def test_patches_are_those_of_the_paper() -> None:
    """A logit sees 70 positions along each axis, and there are 30 along 256."""
    judge = PatchDiscriminator(DataSpec(3, (256, 256)), width=4).double()
    x = torch.randn(1, 3, 256, 256, dtype=torch.float64, requires_grad=True)
    # without the norms, which see the whole
    for module in judge.layers:
        for name, part in module.named_children():
            if isinstance(part, nn.GroupNorm):
                setattr(module, name, nn.Identity())
    (judgement,) = judge(x, {})
    assert judgement.logits.shape == (1, 1, 30, 30)
    assert [tuple(feature.shape[1:]) for feature in judgement.features] == [
        (4, 128, 128),
        (8, 64, 64),
        (16, 32, 32),
        (32, 31, 31),
    ]
    (gradient,) = torch.autograd.grad(judgement.logits[0, 0, 15, 15], x)
    seen = gradient[0].abs().sum(0).nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [70, 70]


def test_a_unet_judges_the_whole_and_every_position() -> None:
    whole, positions = UNetDiscriminator(DataSpec(3, (17, 32)), width=4)(torch.randn(2, 3, 17, 32), {})
    assert whole.logits.shape == (2, 1)
    assert positions.logits.shape == (2, 1, 17, 32)


def test_a_spectral_norm_is_one() -> None:
    """By torch's own singular values, after some passes; the bias and what comes after are left alone."""
    layer = SpectralConv(nn.Conv2d(3, 8, 4, stride=2))
    x, largest = torch.randn(1, 3, 8, 8), torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)
    for _ in range(200):
        y = layer(x)
    expected = nn.functional.conv2d(x, layer.weight / largest, layer.bias, stride=2)
    torch.testing.assert_close(y, expected)
    before = layer.direction.clone()
    torch.testing.assert_close(layer.eval()(x), expected)
    assert torch.equal(layer.direction, before)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (DataSpec(1, (8,), levels=4, ordered=False), ["unordered", "elbo"]),
        (DataSpec(1, (4, 4, 4, 4)), ["one to three axes", "4"]),
    ],
)
def test_data_that_cannot_be_convolved_is_refused(data: DataSpec, words: list[str]) -> None:
    for part in (PatchDiscriminator, UNetDiscriminator):
        with pytest.raises(ValueError, match=".*".join(words)):
            part(data)
