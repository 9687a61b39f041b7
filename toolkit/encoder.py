"""The interface of encoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Protocol

from torch import Tensor, nn


class EncoderStream(Protocol):
    """Data chunk by chunk: what is kept from one to the next, in place of what came before, is its state."""

    def __call__(self, x: Tensor) -> Tensor:
        """The latents of x ``(batch, channels, positions, …)``, a whole number of strides that follow the last call's;
        they have the gradient of nothing."""


class Encoder(nn.Module, ABC):
    """Data to latents.

    The constructor may ask for ``data: DataSpec`` and ``dim: int``, the channels that the quantizer takes.

    Laws, checked by toolkit.testing.EncoderSuite:
      where ``stride`` is declared: shifting x by one stride shifts z by one, away from the border; where ``lead``, too,
        an axis of a whole number of strides but for it gives so many positions of z
      where ``causal``: a prefix in gives the prefix out
      where ``context`` is declared: it is the measured one, and chunks with it give the whole, and so does a stream
      where it takes padding: an example in padding gives what it does alone
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

    def stream(self) -> EncoderStream | None:
        """A new stream of examples side by side, with the weights of now; None where there is none, and chunks go
        through ``forward`` with their context. For encoders whose ``context`` is all before: they need not see it
        twice, and a short chunk costs what it is long."""
        return None

    takes_padding: bool = False
    """Whether nothing looks along the first axis but convolutions that pad with zeros, so that zeros behind an
    example's end are what it sees alone: then examples of unequal lengths are padded to one batch. One that does not
    look ahead takes padding, too, and need not say so."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """x ``(batch, channels, *axes)`` to z ``(batch, dim, *grid)``."""

    if TYPE_CHECKING:
        __call__ = forward
