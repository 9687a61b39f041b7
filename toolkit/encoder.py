"""The interface of encoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """Data to latents.

    May ask for ``data: DataSpec`` and ``dim: int``, the channels that the quantizer takes.

    Laws, checked by toolkit.testing.EncoderSuite:
      where ``stride`` is declared: moving x by one stride moves z by one, away from the border
      where ``causal``: a prefix in gives the prefix out
    """

    rank: ClassVar[int | None] = None
    """Number of axes it works on; extra leading axes are folded into the batch. None: the data's."""

    stride: tuple[int, ...] | None = None
    causal: bool = False

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """x ``(batch, channels, *axes)`` to z ``(batch, dim, *grid)``."""

    if TYPE_CHECKING:
        __call__ = forward
