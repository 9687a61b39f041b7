"""Data longer than memory holds: through a model's parts in chunks along the first axis, each with its context.

What goes in and what comes out are pieces ``(batch, channels, positions, …)`` of any lengths, in order; joined, those
that come out are what the whole would have given, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import gcd, lcm
from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.autoencoder import Autoencoder
from toolkit.device import in_float32
from toolkit.fit import device_of, title
from toolkit.quantizer import Quantized
from toolkit.rollout import within
from toolkit.sample import BATCH

AT_ONCE = 32
"""Examples of the length that a model was trained on, whose positions go through it at once."""


Decode = Callable[[Tensor, Mapping[str, Tensor]], Tensor]
"""Latents and the conditions of their positions, to data."""


class Window(NamedTuple):
    """A chunk of the joined pieces, with its context as far as there is any."""

    t: Tensor
    """``(batch, channels, positions, …)``."""
    first: int
    """Where it begins in the whole."""
    own: slice
    """The chunk in it."""


def slide(pieces: Iterable[Tensor], size: int | None, before: int = 0, after: int = 0) -> Iterator[Window]:
    """Chunks of ``size`` positions along axis 2, the last one shorter; of None, all at once. Nothing for no positions.

    No more than a window and a piece are kept.
    """
    kept = _Kept()
    at, source = 0, iter(pieces)
    while size is not None and kept.filled(source, at + size + after):
        first = max(0, at - before)
        yield Window(kept.joined(first, at + size + after), first, slice(at - first, at - first + size))
        at += size
        kept.forget(max(0, at - before))
    kept.filled(source, None)
    while at < kept.stop:  # what was kept as context is a chunk of its own where it is longer than one
        first, stop = max(0, at - before), kept.stop if size is None else min(kept.stop, at + size)
        yield Window(kept.joined(first, min(kept.stop, stop + after)), first, slice(at - first, stop - first))
        at = stop


class _Kept:
    """The positions ``start`` to ``stop`` of the whole."""

    def __init__(self) -> None:
        self.pieces, self.start, self.stop = list[Tensor](), 0, 0

    def filled(self, source: Iterator[Tensor], stop: int | None) -> bool:
        """Takes pieces up to a position, or to the end; whether there are as many."""
        while stop is None or self.stop < stop:
            piece = next(source, None)
            if piece is None:
                return False
            self.pieces.append(piece)
            self.stop += piece.shape[2]
        return True

    def joined(self, first: int, stop: int) -> Tensor:
        if len(self.pieces) > 1:
            self.pieces = [torch.cat(self.pieces, 2)]
        return self.pieces[0][:, :, first - self.start : stop - self.start]

    def forget(self, first: int) -> None:
        """What is before a position, and its memory."""
        if self.pieces:
            self.pieces = [self.joined(first, self.stop).clone()]
        self.start = first


def whole_encoding(autoencoder: Autoencoder) -> str | None:
    """Why data can only be encoded whole; None where chunks of it can."""
    encoder, quantizer = autoencoder.encoder, autoencoder.quantizer
    if not _separately(autoencoder):
        return f"{title(quantizer)} quantizes all positions together"
    if not _folded(autoencoder, encoder.rank) and encoder.context is None:
        return f"{title(encoder)} declares no context"
    return _uneven(autoencoder)


def whole_decoding(autoencoder: Autoencoder) -> str | None:
    """Why latents can only be decoded whole; None where chunks of them can."""
    decoder = autoencoder.decoder
    if not _folded(autoencoder, decoder.rank) and decoder.context is None:
        return f"{title(decoder)} declares no context"
    return _uneven(autoencoder)


def quantized(autoencoder: Autoencoder, pieces: Iterable[Tensor]) -> Iterator[Quantized]:
    """Data in pieces, in all a whole number of codes, through encoder and quantizer."""
    device, stride = device_of(autoencoder), positions_per_code(autoencoder)
    whole = whole_encoding(autoencoder) is not None
    before, after = (0, 0) if whole else _encoder_context(autoencoder, stride)
    size = None if whole else _size(autoencoder, before + after)
    for window in slide(pieces, size and size * stride, before * stride, after * stride):
        if (axes := tuple(window.t.shape[2:])) != autoencoder.data.axes:
            autoencoder.code_spec.refuse_parts(f"data of {axes}", f"give examples of {autoencoder.data.axes}")
        with torch.no_grad(), in_float32(device):
            result = autoencoder.quantize(window.t.to(device))
        if whole:
            yield result
            continue
        to_the_end = window.own.stop == window.t.shape[2]
        own = slice(window.own.start // stride, None if to_the_end else window.own.stop // stride)
        yield result._replace(z=result.z[:, :, own], codes=result.codes[:, :, own])


def embedded(autoencoder: Autoencoder, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """Codes in pieces to latents in pieces."""
    device, separate = device_of(autoencoder), _separately(autoencoder)
    for codes in pieces if separate else (window.t for window in slide(pieces, None)):
        with torch.no_grad(), in_float32(device):
            z = torch.cat([autoencoder.embed(part) for part in codes.to(device).split(BATCH)])
        yield z


def decoded(
    autoencoder: Autoencoder,
    pieces: Iterable[Tensor],
    conditions: Mapping[str, Tensor],
    decode: Decode,
) -> Iterator[Tensor]:
    """Latents in pieces to data in pieces, by ``decode``."""
    stride, known = positions_per_code(autoencoder), autoencoder.data.conditions
    whole = whole_decoding(autoencoder) is not None
    unit = lcm(*(c.stride // gcd(c.stride, stride) for c in known if c.per_step))
    before, after = (0, 0) if whole else (_up(n, unit) for n in _decoder_context(autoencoder))
    size = None if whole else _up(_size(autoencoder, before + after), unit)
    for window in slide(pieces, size, before, after):
        if whole:
            yield decode(window.t, conditions)
            continue
        length = window.t.shape[2] * stride
        x = decode(window.t, within(conditions, known, window.first * stride, length))
        yield x[:, :, window.own.start * stride : window.own.stop * stride]


def positions_per_code(autoencoder: Autoencoder) -> int:
    """Along the first axis; where the number is not whole, that of the first code."""
    return max(1, autoencoder.data.axes[0] // autoencoder.grid[0])


def padded(pieces: Iterable[Tensor], stride: int) -> Iterator[Tensor]:
    """The pieces, and the last position again until there is a whole number of codes."""
    length, last = 0, None
    for piece in pieces:
        if piece.shape[2]:
            length, last = length + piece.shape[2], piece[:, :, -1:].clone()
            yield piece
    if last is not None and length % stride:
        yield last.expand(*(-1 if axis != 2 else stride - length % stride for axis in range(last.dim())))


def _separately(autoencoder: Autoencoder) -> bool:
    """Whether a position is quantized whatever the others are."""
    return autoencoder.quantizer.local and not autoencoder.code_spec.parts


def _folded(autoencoder: Autoencoder, rank: int | None) -> bool:
    """Whether a part takes every position of the first axis as an example of its own."""
    return rank is not None and rank < autoencoder.data.rank


def _uneven(autoencoder: Autoencoder) -> str | None:
    length, codes = autoencoder.data.axes[0], autoencoder.grid[0]
    return f"{length} positions have {codes} codes, not a whole number for each" if length % codes else None


def _encoder_context(autoencoder: Autoencoder, stride: int) -> tuple[int, int]:
    """In codes."""
    if _folded(autoencoder, autoencoder.encoder.rank):
        return 0, 0
    before, after = autoencoder.encoder.context or (0, 0)
    return -(-before // stride), -(-after // stride)


def _decoder_context(autoencoder: Autoencoder) -> tuple[int, int]:
    if _folded(autoencoder, autoencoder.decoder.rank):
        return 0, 0
    return autoencoder.decoder.context or (0, 0)


def _size(autoencoder: Autoencoder, context: int) -> int:
    """Codes of a chunk: no fewer than four times its context, which is worked on again in the next."""
    return max(AT_ONCE * autoencoder.grid[0], 4 * context)


def _up(n: int, unit: int) -> int:
    return -(-n // unit) * unit
