"""The interface of conditioners: networks that read texts for a prior."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn


class Tokens(NamedTuple):
    """What a network can attend to of each text of a batch."""

    vectors: Tensor
    """``(batch, tokens, dim)``."""
    mask: Tensor
    """``(batch, tokens)`` bool: which of them there are, at least one of every text."""


class Conditioner(nn.Module, ABC):
    """Texts to vectors. It is no part of a run of its own: a prior has one inside for each text that it is given.

    The constructor may ask for ``condition: Condition``, the text, of which ``size`` is the most bytes.

    Laws, checked by toolkit.testing.ConditionerSuite:
      every text has a token, an empty one too
      each text is read by itself in eval mode
      zeros after a text's end change nothing
      the order of words matters
    """

    dim: int
    """Channels of a vector."""

    @abstractmethod
    def forward(self, text: Tensor) -> Tokens:
        """Texts ``(batch, bytes)`` uint8: UTF-8, then zeros. All zeros: no text is known.

        ``bytes`` may be fewer than the condition's size, where all texts are shorter.
        """

    if TYPE_CHECKING:
        __call__ = forward
