"""The interface of entropy coders: where numbers of known probabilities are written to, or read from."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class EntropyCoder(ABC):
    """Writes numbers, or reads them back, a few of every example at a time.

    Who knows their distribution goes through them in one order for both: ``Prior.entropy_code`` through codes,
    ``Distribution.entropy_code`` through data. What is read must have the probabilities that it was written with, to
    the last bit.
    """

    @abstractmethod
    def code(self, probs: Tensor, values: Tensor | None) -> Tensor:
        """The next ``count`` numbers of every example, ``(batch, count)`` int64, on the device of ``probs``.

        ``probs`` ``(batch, count, size)`` are their probabilities, up to a factor. ``values``, of the same shape as
        what is returned, are the numbers where they are written; where they are read, it is ignored.
        """

    @abstractmethod
    def code_uniform(self, size: int, like: Tensor, values: Tensor | None) -> Tensor:
        """The same for numbers that are all equally likely among ``size``; ``like`` ``(batch, count)`` has the shape
        and the device."""
