"""The interface of decoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from toolkit.likelihood import Distribution


class Decoder(nn.Module, ABC):
    """Latents to a distribution over the data.

    The constructor may ask for ``data: DataSpec``, ``dim: int`` (channels of the quantizer's latents),
    ``grid: tuple[int, ...]``, ``conditions: tuple[Condition, ...]`` (those it is given) and ``likelihood: Likelihood``.

    Laws, checked by toolkit.testing.DecoderSuite:
      log_prob of the data's shape is finite, and float32 under any autocast
      samples and mean have the data's shape
    """

    rank: ClassVar[int | None] = None
    """Number of axes it works on; extra leading axes are folded into the batch. None: all axes of the data."""

    @abstractmethod
    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        """z ``(batch, dim, *grid)``."""

    if TYPE_CHECKING:
        __call__ = forward
