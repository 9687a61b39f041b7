"""Data through the autoencoders of a run, one over the codes of another, in pieces of any lengths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from toolkit import chunks
from toolkit.autoencoder import Autoencoder
from toolkit.fit import device_of
from toolkit.given import as_given
from toolkit.pieces import Chain, Each, through
from toolkit.quantizer import Quantized
from toolkit.rollout import within
from toolkit.sample import BATCH, Progress, decode_latents, unwatched


@dataclass(frozen=True)
class Drawing:
    """How data is drawn where a likelihood has no mean; with ``noise`` also where it has one."""

    generator: torch.Generator
    noise: bool = False
    progress: Progress = unwatched


@dataclass(frozen=True)
class Flow:
    """An autoencoder and, where it is over the codes of another one, the flow through that.

    Pieces are batches ``(batch, channels, positions, …)`` and follow each other along the first axis.
    """

    autoencoder: Autoencoder
    below: Flow | None = None
    fitting: bool = False
    """Whether conditions per step may be of another length than what is decoded: then the last step repeats."""

    def encoded(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """Data to codes."""
        return through(self.encoding(), pieces)

    def quantized(self, pieces: Iterable[Tensor]) -> Iterator[Quantized]:
        """Data through the bottleneck."""
        return through(self.quantizing(), pieces)

    def encoding(self, arriving: bool = False) -> Chain:
        """The stage of ``encoded``; ``arriving``: see ``toolkit.chunks.quantizing``."""
        return Chain(self.quantizing(arriving), Each(_codes))

    def quantizing(self, arriving: bool = False) -> Chain:
        """The stage of ``quantized``."""
        given = Each(partial(as_given, spec=self.autoencoder.data))
        own = Chain(given, chunks.quantizing(self.autoencoder, arriving))
        return own if self.below is None else Chain(self.below.encoding(arriving), own)

    def decoded(self, codes: Iterable[Tensor], conditions: Mapping[str, Tensor], drawing: Drawing) -> Iterator[Tensor]:
        """Codes to data."""
        return self.unfolded(chunks.embedded(self.autoencoder, codes), conditions, drawing)

    def unfolded(self, z: Iterable[Tensor], conditions: Mapping[str, Tensor], drawing: Drawing) -> Iterator[Tensor]:
        """Latents to data."""
        decode = partial(_decode, self.autoencoder, drawing, self.fitting)
        return self.lowered(chunks.decoded(self.autoencoder, z, conditions, decode), conditions, drawing)

    def lowered(self, x: Iterable[Tensor], conditions: Mapping[str, Tensor], drawing: Drawing) -> Iterator[Tensor]:
        """What the autoencoder models, as data."""
        return iter(x) if self.below is None else self.below.decoded(x, conditions, drawing)

    def whole(self) -> list[str]:
        """Why an example goes through whole, however long; nothing where it goes in chunks."""
        own = (chunks.whole_encoding(self.autoencoder), chunks.whole_decoding(self.autoencoder))
        return [*(reason for reason in own if reason), *(self.below.whole() if self.below else [])]


def _codes(quantized: Quantized) -> Tensor:
    return quantized.codes


def at_once(length: int, usual: int) -> int:
    """How many examples of a length go through together, where ``BATCH`` of the usual one do."""
    return BATCH if length <= usual else max(1, BATCH * usual // length)


def _decode(
    autoencoder: Autoencoder, drawing: Drawing, fitting: bool, z: Tensor, conditions: Mapping[str, Tensor]
) -> Tensor:
    if fitting:
        length = autoencoder.positions(z.shape[2])
        conditions = within(conditions, autoencoder.data.conditions, 0, length)
    return decode_latents(
        autoencoder,
        z.to(device_of(autoencoder)),
        conditions,
        generator=drawing.generator,
        noise=drawing.noise,
        progress=drawing.progress,
    )
