"""How else people keep data: everyday codecs, which a run can be compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Coded(NamedTuple):
    """An example that went through a codec."""

    data: bytes
    """The whole file, as others would read it."""
    header: int
    """How many of its bytes come before any number: marks, sizes, tables that every file of this quality has."""
    x: Tensor
    """What is read from it, in the data's own form and shape."""


@dataclass(frozen=True)
class FileCodec:
    """An everyday codec of one kind of data, such as PNG, at all its qualities.

    ``through`` takes an example ``(channels, *axes)`` in the data's own form and one of the ``qualities``; None loses
    nothing, unless the file's numbers have fewer values than the data. ``missing``: why it cannot be used here, such as
    ``the installed FFmpeg has no encoder libopus``; empty where it can.
    """

    through: Callable[[Tensor, float | None], Coded]
    qualities: tuple[float | None, ...] = (None,)
    """None: without loss."""
    unit: str = "{:g}"
    """A quality in words, such as ``{:g} kbit/s``."""
    missing: str = ""

    def words(self, quality: float | None) -> str:
        return "lossless" if quality is None else self.unit.format(quality)
