"""The interface of encoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """Data to latents.

    The constructor may ask for ``data: DataSpec`` and ``dim: int``, the channels that the quantizer takes.

    Laws, checked by toolkit.testing.EncoderSuite:
      where ``stride`` is declared: shifting x by one stride shifts z by one, away from the border; where ``lead``, too,
        an axis of a whole number of strides but for it gives so many positions of z
      where ``causal``: a prefix in gives the prefix out
      where ``context`` is declared: it is the measured one, and chunks with it give the whole
    """

    rank: ClassVar[int | None] = None
    """Number of axes it works on; extra leading axes are folded into the batch. None: all axes of the data."""

    stride: tuple[int | None, ...] | None = None
    """Positions of x per position of z, by axis; None, of one axis or of all: not declared."""
    causal: bool = False
    """Whether z depends on no later position of x along the first axis."""

    lead: int = 0
    """How many positions of the first code's stride would lie before x, along the first axis: it stands for the others,
    ``stride - lead`` of them. So films of 1 + T frames have a first code for one frame. The decoder has the same."""

    context: tuple[int, int] | None = None
    """Positions of x along the first axis, before and after those of its own stride, that a position of z depends on:
    ``z[k]`` is a function of ``x[k * stride - before : (k + 1) * stride + after]``. None: not declared, as where it
    would be all of x. With it, x is encoded in chunks of any length."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """x ``(batch, channels, *axes)`` to z ``(batch, dim, *grid)``."""

    if TYPE_CHECKING:
        __call__ = forward
