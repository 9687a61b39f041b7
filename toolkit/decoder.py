"""The interface of decoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch
from torch import Tensor, nn

from toolkit.likelihood import Distribution


class DecoderStream(Protocol):
    """Data that depends on data before it, chunk by chunk: what is kept from one to the next is its state."""

    def __call__(self, z: Tensor, own: slice, conditions: Mapping[str, Tensor]) -> Tensor:
        """The data of the latents ``own`` among z ``(batch, dim, positions, …)``, which follow those of the last call.

        The others are their ``stream_context``, as far as there is any; conditions are those of z. Data come in the
        data's own form, ``(batch, channels, positions * stride, …)``.
        """


class MeanStream(Protocol):
    """Latents chunk by chunk to what ``forward`` gives: what is kept from one to the next is its state."""

    def __call__(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        """Over the data of z ``(batch, dim, positions, …)``, which follow those of the last call; conditions are those
        of z. It has the gradient of nothing."""


class Decoder(nn.Module, ABC):
    """Latents to a distribution over the data.

    The constructor may ask for ``data: DataSpec``, ``dim: int`` (channels of the quantizer's latents),
    ``grid: tuple[int, ...]``, ``conditions: tuple[Condition, ...]`` (those it is given) and ``likelihood: Likelihood``.

    Laws, checked by toolkit.testing.DecoderSuite:
      log_prob of the data's shape is finite, and float32 under any autocast
      samples and mean have the data's shape
      where ``context`` is declared: it is the measured one, and chunks with it give the whole, however z is cut; a
        ``mean_stream`` gives it, too
      where it takes padding: an example in padding gives what it does alone
      where ``stream_context`` is: a stream gives the same data however z is cut, and those of the whole
    """

    rank: ClassVar[int | None] = None
    """Number of axes it works on; extra leading axes are folded into the batch. None: all axes of the data."""

    lead: int = 0
    """How many positions of x the first latent has fewer than the others, along the first axis: see ``Encoder``. Of a
    chunk, too: what it lacks is under its context, of at least one latent before."""

    context: tuple[int, int] | None = None
    """Positions of z along the first axis, before and after its own, that the positions of x under it depend on: with
    ``stride`` of them to a latent, ``x[k * stride : (k + 1) * stride]`` is of a distribution that is a function of
    ``z[k - before : k + after + 1]``, and of the conditions. None: not declared, as where it would be all of z, or
    where x depends on x. With it, z is decoded in chunks of any length."""

    stream_context: tuple[int, int] | None = None
    """As ``context``, where x depends on x before it as well, and ``stream`` goes on from there."""

    def stream(self, generators: Sequence[torch.Generator]) -> DecoderStream:
        """A new stream of examples side by side, each drawn by its own generator; for decoders with a
        ``stream_context``. However z is cut into chunks, the data are the same, up to rounding."""
        raise NotImplementedError(f"{type(self).__name__} declares no stream_context")

    def mean_stream(self) -> MeanStream | None:
        """A new stream of examples side by side, with the weights of now; None where there is none, and chunks go
        through ``forward`` with their context. For decoders whose ``context`` is all before: they need not see it
        twice, and a short chunk costs what it is long."""
        return None

    takes_padding: bool = False
    """Whether nothing looks along the first axis but convolutions that pad with zeros, so that zeros behind an
    example's end are what it sees alone: then examples of unequal lengths are padded to one batch. One that does not
    look ahead takes padding, too, and need not say so."""

    @abstractmethod
    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        """z ``(batch, dim, *grid)``."""

    if TYPE_CHECKING:
        __call__ = forward
