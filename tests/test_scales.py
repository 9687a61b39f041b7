"""Codes that do not lie along the latents: a residual over scales, from its laws to a trained run."""

from __future__ import annotations

from typing import ClassVar

import pytest
from toy.toy_scales import ScalesQuantizer

from toolkit.quantizer import Quantizer
from toolkit.quantizers.product import ProductQuantizer
from toolkit.quantizers.projected import ProjectedQuantizer
from toolkit.quantizers.residual import ResidualQuantizer
from toolkit.testing.quantizer import QuantizerSuite


class TestScales(QuantizerSuite):
    grid: ClassVar = (4, 4)

    def make(self, dim: int) -> Quantizer:
        return ScalesQuantizer(dim, codebook_size=11)


class TestProjectedScales(TestScales):
    def make(self, dim: int) -> Quantizer:
        return ProjectedQuantizer(dim, inner=ScalesQuantizer, codebook_dim=4)


class TestResidualOfScales(TestScales):
    def make(self, dim: int) -> Quantizer:
        return ResidualQuantizer(dim, inner=ScalesQuantizer, depth=2)


class TestSharedProductOfScales(TestScales):
    def make(self, dim: int) -> Quantizer:
        return ProductQuantizer(dim, inner=ScalesQuantizer, shared=True)
