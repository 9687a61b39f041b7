"""Data longer than memory holds: through a model's parts in chunks along the first axis, each with its context.

What goes in and what comes out are pieces ``(batch, channels, positions, …)`` of any lengths, in order; joined, those
that come out are what the whole would have given, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from math import gcd, lcm

import torch
from torch import Tensor

from toolkit.autoencoder import Autoencoder
from toolkit.device import in_float32
from toolkit.encoder import EncoderStream
from toolkit.fit import device_of, title
from toolkit.pieces import Chain, Each, Filling, Stage, Window, Windows, through
from toolkit.quantizer import Quantized
from toolkit.rollout import within
from toolkit.sample import BATCH

AT_ONCE = 32
"""Examples of the length that a model was trained on, whose positions go through it at once."""


Decode = Callable[[Tensor, Mapping[str, Tensor]], Tensor]
"""Latents and the conditions of their positions, to data."""


def whole_encoding(autoencoder: Autoencoder) -> str | None:
    """Why data can only be encoded whole; None where chunks of it can."""
    encoder, quantizer = autoencoder.encoder, autoencoder.quantizer
    if not _separately(autoencoder):
        return f"{title(quantizer)} quantizes all positions together"
    if not folded(autoencoder, encoder.rank) and encoder.context is None:
        return f"{title(encoder)} declares no context"
    return _uneven(autoencoder)


def whole_decoding(autoencoder: Autoencoder) -> str | None:
    """Why latents can only be decoded whole; None where chunks of them can."""
    decoder = autoencoder.decoder
    if not folded(autoencoder, decoder.rank) and decoder.context is None:
        return f"{title(decoder)} declares no context"
    return _uneven(autoencoder)


def quantizing(autoencoder: Autoencoder, arriving: bool = False) -> Chain:
    """Data in pieces, in all a whole number of codes, through encoder and quantizer: a stage of ``Quantized``.

    ``arriving``: each code as soon as it is certain, by the encoder's stream if it has one; else as many at once as
    are best.
    """
    stride, whole = positions_per_code(autoencoder), whole_encoding(autoencoder) is not None
    if whole:
        return Chain(Windows(None, None), Each(partial(_quantized, autoencoder, stride, whole)))
    before, after = encoder_context(autoencoder)
    stream = autoencoder.encoder.stream() if arriving and not folded(autoencoder, autoencoder.encoder.rank) else None
    if stream is not None:
        windows = Windows(stride, most_at_once(autoencoder, 0) * stride)
        return Chain(windows, Each(partial(_quantized_next, autoencoder, stream)))
    most = most_at_once(autoencoder, -(-before // stride) - (-after // stride))
    windows = Windows((1 if arriving else most) * stride, most * stride, before, after, stride)
    return Chain(windows, Each(partial(_quantized, autoencoder, stride, whole)))


def quantized(autoencoder: Autoencoder, pieces: Iterable[Tensor]) -> Iterator[Quantized]:
    """Data in pieces, in all a whole number of codes, through encoder and quantizer."""
    return through(quantizing(autoencoder), pieces)


def _quantized(autoencoder: Autoencoder, stride: int, whole: bool, window: Window) -> Quantized:
    if (axes := tuple(window.t.shape[2:])) != autoencoder.data.axes:
        autoencoder.code_spec.refuse_parts(f"data of {axes}", f"give examples of {autoencoder.data.axes}")
    device = device_of(autoencoder)
    with torch.no_grad(), in_float32(device):
        result = autoencoder.quantize(window.t.to(device))
    if whole:
        return result
    to_the_end = window.own.stop == window.t.shape[2]
    own = slice(window.own.start // stride, None if to_the_end else window.own.stop // stride)
    return result._replace(z=result.z[:, :, own], codes=result.codes[:, :, own])


def _quantized_next(autoencoder: Autoencoder, stream: EncoderStream, window: Window) -> Quantized:
    device = device_of(autoencoder)
    with torch.no_grad(), in_float32(device):
        return autoencoder.quantizer(stream(window.t.to(device)))


def embedding(autoencoder: Autoencoder) -> Stage[Tensor, Tensor]:
    """Codes in pieces to latents in pieces."""
    each = Each(partial(_embedded, autoencoder))
    return each if _separately(autoencoder) else Chain(Windows(None, None), Each(_all_of), each)


def embedded(autoencoder: Autoencoder, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """Codes in pieces to latents in pieces."""
    return through(embedding(autoencoder), pieces)


def _embedded(autoencoder: Autoencoder, codes: Tensor) -> Tensor:
    device = device_of(autoencoder)
    with torch.no_grad(), in_float32(device):
        return torch.cat([autoencoder.embed(part) for part in codes.to(device).split(BATCH)])


def _all_of(window: Window) -> Tensor:
    return window.t


def decoding(autoencoder: Autoencoder, conditions: Mapping[str, Tensor], decode: Decode) -> Chain:
    """Latents in pieces to data in pieces, by ``decode``: a stage."""
    if whole_decoding(autoencoder) is not None:
        return Chain(Windows(None, None), Each(lambda window: decode(window.t, conditions)))

    def own_of(window: Window, known: Mapping[str, Tensor]) -> Tensor:
        return under(autoencoder, window.own, decode(window.t, known))

    before, after = decoder_context(autoencoder)
    unit = codes_per_step(autoencoder)
    size = up(most_at_once(autoencoder, up(before, unit) + up(after, unit)), unit)
    return over_windows(autoencoder, Windows(size, size, before, after, unit), conditions, own_of)


def over_windows(
    autoencoder: Autoencoder,
    windows: Windows,
    conditions: Mapping[str, Tensor],
    own_of: Callable[[Window, Mapping[str, Tensor]], Tensor],
) -> Chain:
    """Latents in pieces to data in pieces: ``own_of`` a window and the conditions of its positions."""
    stride, known = positions_per_code(autoencoder), autoencoder.data.conditions

    def each(window: Window) -> Tensor:
        return own_of(window, within(conditions, known, window.first * stride, window.t.shape[2] * stride))

    return Chain(windows, Each(each))


def decoded(
    autoencoder: Autoencoder,
    pieces: Iterable[Tensor],
    conditions: Mapping[str, Tensor],
    decode: Decode,
) -> Iterator[Tensor]:
    """Latents in pieces to data in pieces, by ``decode``."""
    return through(decoding(autoencoder, conditions, decode), pieces)


def codes_per_step(autoencoder: Autoencoder) -> int:
    """The fewest codes that are a whole number of steps of every condition per step."""
    stride = positions_per_code(autoencoder)
    return lcm(*(c.stride // gcd(c.stride, stride) for c in autoencoder.data.conditions if c.per_step))


def positions_per_code(autoencoder: Autoencoder) -> int:
    """Along the first axis; where the number is not whole, that of the first code."""
    return max(1, (autoencoder.data.axes[0] + autoencoder.lead) // autoencoder.grid[0])


def under(autoencoder: Autoencoder, own: slice, x: Tensor) -> Tensor:
    """Of data ``(batch, channels, positions, …)`` that is decoded from some codes, that of those ``own`` among them."""
    stride, lead = positions_per_code(autoencoder), autoencoder.lead
    return x[:, :, max(0, own.start * stride - lead) : own.stop * stride - lead]


def padded(pieces: Iterable[Tensor], stride: int, lead: int = 0) -> Iterator[Tensor]:
    """The pieces, and the last position again until there is a whole number of codes; ``lead``: see ``Encoder``."""
    return through(Filling(stride, lead), pieces)


def _separately(autoencoder: Autoencoder) -> bool:
    """Whether a position is quantized whatever the others are."""
    return autoencoder.quantizer.local and not autoencoder.code_spec.parts


def folded(autoencoder: Autoencoder, rank: int | None) -> bool:
    """Whether a part takes every position of the first axis as an example of its own."""
    return rank is not None and rank < autoencoder.data.rank


def _uneven(autoencoder: Autoencoder) -> str | None:
    length, codes = autoencoder.data.axes[0], autoencoder.grid[0]
    whole = (length + autoencoder.lead) % codes == 0
    return None if whole else f"{length} positions have {codes} codes, not a whole number for each"


def encoder_context(autoencoder: Autoencoder) -> tuple[int, int]:
    """In positions."""
    return (0, 0) if folded(autoencoder, autoencoder.encoder.rank) else autoencoder.encoder.context or (0, 0)


def decoder_context(autoencoder: Autoencoder) -> tuple[int, int]:
    """In codes."""
    if folded(autoencoder, autoencoder.decoder.rank):
        return 0, 0
    return autoencoder.decoder.context or (0, 0)


def most_at_once(autoencoder: Autoencoder, context: int) -> int:
    """Most codes of a chunk: no fewer than four times its context, which is worked on again in the next."""
    return max(AT_ONCE * autoencoder.grid[0], 4 * context)


def up(n: int, unit: int) -> int:
    """To the next multiple."""
    return -(-n // unit) * unit
