"""The interface of discriminators: networks that tell data from reconstructions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn


class Judgement(NamedTuple):
    """What one network of a discriminator says of a batch."""

    logits: Tensor
    """``(batch, …)``: above 0 for data, below for reconstructions."""
    features: tuple[Tensor, ...]
    """``(batch, …)`` each: its layers, first to last, for feature matching."""


class Discriminator(nn.Module, ABC):
    """A critic of reconstructions. It is no part of a run of its own: an objective has one inside.

    The constructor may ask for ``data: DataSpec`` and ``conditions: tuple[Condition, ...]``.

    Laws, checked by toolkit.testing.DiscriminatorSuite:
      the gradient reaches every number of x
      each example is judged by itself in eval mode, and no state changes there
      statistics are those of all ranks
    """

    @abstractmethod
    def forward(self, x: Tensor, conditions: Mapping[str, Tensor]) -> list[Judgement]:
        """x ``(batch, channels, *axes)``, floats on the scale of ``DataSpec.scale``; one judgement per network."""

    if TYPE_CHECKING:
        __call__ = forward
