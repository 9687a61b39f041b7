"""Two discriminators, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

from torch import Tensor

from toolkit.discriminator import Discriminator, Judgement
from toolkit.discriminators.patch import PatchDiscriminator
from toolkit.discriminators.unet import UNetDiscriminator


@final
class BothDiscriminator(Discriminator):
    """The judgements of two discriminators, one after the other: several networks for several kinds of mistakes, as in
    HiFi-GAN (Kong et al. 2020, arXiv:2010.05646), whose losses are means over all of them.

    Args:
        first: a discriminator.
        second: the other one; both again makes three.
    """

    def __init__(
        self,
        *,
        first: Callable[[], Discriminator] = PatchDiscriminator,  # type: ignore[assignment]  # given data
        second: Callable[[], Discriminator] = UNetDiscriminator,  # type: ignore[assignment]  # given data
    ) -> None:
        super().__init__()
        self.first, self.second = first(), second()

    def forward(self, x: Tensor, conditions: Mapping[str, Tensor]) -> list[Judgement]:
        judgements: list[Judgement] = [*self.first(x, conditions), *self.second(x, conditions)]
        return judgements
