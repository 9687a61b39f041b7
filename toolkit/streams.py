"""Data as it arrives: pushed piece by piece to codes, and codes to data, each as soon as it is certain.

A part that has a stream of its own goes on from its state; another one that declares its ``context`` is run over it
again with every piece. However a stream is cut into pieces, what comes out is the same up to rounding, and codes are
equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import final

import torch
from torch import Tensor

from toolkit import chunks
from toolkit.autoencoder import Autoencoder
from toolkit.decoder import MeanStream
from toolkit.device import in_float32
from toolkit.errors import ToolkitError
from toolkit.fit import device_of, fakes, title
from toolkit.flow import Flow
from toolkit.given import check_data, codes_of
from toolkit.pieces import Chain, Filling, Stage, Window, Windows
from toolkit.sample import decode_latents
from toolkit.spec import CodeSpec, DataSpec

Conditions = Callable[[int], Mapping[str, Tensor]]
"""Those of so many examples."""


@final
class StreamEncoder:
    """Data to codes, of any number of streams side by side; ``Model.stream_encoder`` opens one.

    ``latency``: how many positions along the data's first axis must have come, a position itself among them, until its
    code is certain, at most: those of a code, and what the encoder sees after them. ``latency_ms``: the same in
    milliseconds; None where the axis is not time.
    """

    def __init__(self, flow: Flow, spec: DataSpec, codes: CodeSpec, conditions: Conditions) -> None:
        _refuse(encoding_refusal(flow))
        self.spec = spec
        self.latency = encoder_latency(flow)
        self.latency_ms = in_ms(self.latency, spec)

        def build(n: int) -> Chain:
            conditions(n)  # refuses those that the run does not have
            return Chain(Filling(positions_per_code(flow), lead(flow)), flow.encoding(arriving=True))

        self._pieces = _Pieces(build, _empty(codes.shape, torch.int64, flow))

    def push(self, x: Tensor) -> Tensor:
        """Data ``(batch, channels, positions, …)``, of any number of positions, to the codes that are certain with it.

        x is as ``Model.encode`` takes it; codes are ``(batch, depth, positions, …)`` int64, as many as there are.
        ValueError for other data and for another batch than before; ToolkitError after ``flush``.
        """
        _check_axes("x", x, self.spec.shape)
        if x.numel():
            check_data(x, self.spec)
        return self._pieces.push(x)

    def flush(self) -> Tensor:
        """The last codes, and the end of the stream: the last position again fills up the last code."""
        return self._pieces.flush()


@final
class StreamDecoder:
    """Codes to data, of any number of streams side by side; ``Model.stream_decoder`` opens one.

    ``latency``: how many positions along the data's first axis must have come after those of a code until its data is
    certain: what the decoder sees after it. So a stream's latency from data to data is that of encoder and decoder
    together. ``latency_ms``: in milliseconds; None where the axis is not time.
    """

    def __init__(self, flow: Flow, spec: DataSpec, codes: CodeSpec, conditions: Conditions, seed: int) -> None:
        _refuse(decoding_refusal(flow))
        self.spec, self.codes = spec, codes
        self.latency = decoder_latency(flow)
        self.latency_ms = in_ms(self.latency, spec)
        dtype = torch.get_default_dtype() if spec.levels is None else torch.int64
        empty = _empty(spec.shape, dtype, flow)
        self._pieces = _Pieces(lambda n: _decoding(flow, conditions(n), n, seed), empty)

    def push(self, codes: Tensor) -> Tensor:
        """Codes ``(batch, depth, positions, …)``, of any number of positions, to the data that is certain with them.

        Fewer depths than all decode more coarsely. Data is ``(batch, channels, positions, …)``, as many as there are.
        ValueError for other codes and for another batch than before; ToolkitError after ``flush``.
        """
        depth = codes.shape[1] if isinstance(codes, Tensor) and codes.dim() > 1 else self.codes.depth
        _check_axes("codes", codes, (depth, *self.codes.grid))
        return self._pieces.push(codes_of(codes, self.codes) if codes.numel() else codes.long())

    def flush(self) -> Tensor:
        """The last data, and the end of the stream."""
        return self._pieces.flush()


class _Pieces:
    """What a stage gives, joined; it is built with the first piece, which says how many streams there are."""

    def __init__(self, build: Callable[[int], Stage[Tensor, Tensor]], empty: Tensor) -> None:
        """``empty`` is of no streams, ``(0, channels, 0, …)``, and of the type and on the device of what is given."""
        self.build, self.empty = build, empty
        self.stage: Stage[Tensor, Tensor] | None = None
        self.n, self.ended = 0, False

    def push(self, piece: Tensor) -> Tensor:
        if self.ended:
            raise ToolkitError("this stream was flushed, which ends it: open another")
        if self.stage is None:
            self.stage, self.n = self.build(len(piece)), len(piece)
        if len(piece) != self.n:
            raise ValueError(f"a piece of {len(piece)} streams after pieces of {self.n}: push as many at a time")
        return self._joined(self.stage.push(piece))

    def flush(self) -> Tensor:
        if self.ended:
            raise ToolkitError("this stream was flushed already: open another")
        self.ended = True
        return self._joined(self.stage.flush() if self.stage else iter(()))

    def _joined(self, pieces: Iterator[Tensor]) -> Tensor:
        with torch.no_grad():
            given = list(pieces)
        return torch.cat(given, 2) if given else self.empty.new_empty(self.n, *self.empty.shape[1:])


def _empty(shape: tuple[int, ...], dtype: torch.dtype, flow: Flow) -> Tensor:
    return torch.empty(0, shape[0], 0, *shape[2:], dtype=dtype, device=device_of(flow.autoencoder))


def encoding_refusal(flow: Flow) -> str | None:
    """Why codes are not certain before all data is there; None where they are."""
    own = chunks.whole_encoding(flow.autoencoder)
    return own if own or flow.below is None else encoding_refusal(flow.below)


def decoding_refusal(flow: Flow) -> str | None:
    """Why data is not certain before all codes are there; None where it is."""
    autoencoder = flow.autoencoder
    own = chunks.whole_decoding(autoencoder) if decoding_context(autoencoder) is None else None
    if autoencoder.code_spec.parts:
        own = f"{title(autoencoder.quantizer)} has codes that belong to no position"
    return own if own or flow.below is None else decoding_refusal(flow.below)


def decoding_context(autoencoder: Autoencoder) -> tuple[int, int] | None:
    """In codes, also of a decoder that keeps a state; None where neither is declared."""
    decoder = autoencoder.decoder
    if chunks.whole_decoding(autoencoder) is None:
        return chunks.decoder_context(autoencoder)
    even = autoencoder.data.axes[0] % autoencoder.grid[0] == 0
    return decoder.stream_context if even and not decoder.lead else None


def positions_per_code(flow: Flow) -> int:
    """Positions of the data for one of the last autoencoder's codes."""
    below = 1 if flow.below is None else positions_per_code(flow.below)
    return below * chunks.positions_per_code(flow.autoencoder)


def lead(flow: Flow) -> int:
    """How many positions of the data the first of the last autoencoder's codes has fewer than the others."""
    own = flow.autoencoder.lead
    return own if flow.below is None else own * positions_per_code(flow.below) + lead(flow.below)


def encoder_latency(flow: Flow) -> int:
    """See ``StreamEncoder``."""
    return positions_per_code(flow) + _ahead(flow)


def _ahead(flow: Flow) -> int:
    """Positions of the data that encoders see after those of a code."""
    _, after = chunks.encoder_context(flow.autoencoder)
    return after if flow.below is None else after * positions_per_code(flow.below) + _ahead(flow.below)


def decoder_latency(flow: Flow) -> int:
    """See ``StreamDecoder``."""
    _, after = decoding_context(flow.autoencoder) or (0, 0)
    return after * positions_per_code(flow) + (0 if flow.below is None else decoder_latency(flow.below))


def in_ms(positions: int, spec: DataSpec) -> float | None:
    """None where the first axis is not time."""
    rate = spec.rates[0] if spec.rates else None
    return 1000 * positions / rate if rate else None


def _refuse(reason: str | None) -> None:
    if reason:
        raise ToolkitError(f"no stream: {reason}, so nothing is certain before the end: take examples whole instead")


def _check_axes(what: str, piece: Tensor, shape: tuple[int, ...]) -> None:
    """ValueError unless it is ``(batch, *shape)`` but for the first axis."""
    wanted = f"(batch, {shape[0]}, positions{''.join(f', {n}' for n in shape[2:])})"
    if not isinstance(piece, Tensor):
        raise ValueError(f"{what} is a {type(piece).__name__}: a tensor {wanted} is needed")
    own = tuple(piece.shape)
    if len(own) != 1 + len(shape) or not own[0] or (own[1], *own[3:]) != (shape[0], *shape[2:]):
        raise ValueError(f"{what} of shape {own}: {wanted} is needed")


def _decoding(flow: Flow, conditions: Mapping[str, Tensor], n: int, seed: int) -> Chain:
    """Codes of n streams to data."""
    autoencoder = flow.autoencoder
    generators = [torch.Generator().manual_seed((seed + i) % (1 << 64)) for i in range(n)]
    own = Chain(chunks.embedding(autoencoder), _unfolding(autoencoder, conditions, generators))
    return own if flow.below is None else Chain(own, _decoding(flow.below, conditions, n, seed))


def _unfolding(autoencoder: Autoencoder, conditions: Mapping[str, Tensor], generators: list[torch.Generator]) -> Chain:
    """Latents to data."""
    before, after = decoding_context(autoencoder) or (0, 0)
    most: int | None = chunks.most_at_once(autoencoder, before + after)
    means = _mean_stream(autoencoder)
    if means is not None:
        before = after = 0

        def own_of(window: Window, known: Mapping[str, Tensor]) -> Tensor:
            return _next_mean(autoencoder, means, window.t, known)

    elif chunks.whole_decoding(autoencoder) is not None:
        stream = autoencoder.decoder.stream(generators)

        def own_of(window: Window, known: Mapping[str, Tensor]) -> Tensor:
            seen = {name: known[name] for name in autoencoder.decoder_conditions if name in known}
            return stream(window.t, window.own, seen)

    else:
        mean = has_mean(autoencoder)
        most = most if mean else 1  # each code's data is drawn by itself: the pieces do not decide the random numbers
        decode = partial(decode_latents, autoencoder) if mean else partial(_drawn, autoencoder, generators)

        def own_of(window: Window, known: Mapping[str, Tensor]) -> Tensor:
            return chunks.under(autoencoder, window.own, decode(window.t, known))

    windows = Windows(1, most, before, after, chunks.codes_per_step(autoencoder))
    return chunks.over_windows(autoencoder, windows, conditions, own_of)


def _mean_stream(autoencoder: Autoencoder) -> MeanStream | None:
    """The decoder's, where it has one, and its chunks are of any length."""
    folded = chunks.folded(autoencoder, autoencoder.decoder.rank)
    if folded or chunks.whole_decoding(autoencoder) is not None or chunks.codes_per_step(autoencoder) > 1:
        return None
    return autoencoder.decoder.mean_stream() if has_mean(autoencoder) else None


def _next_mean(autoencoder: Autoencoder, stream: MeanStream, z: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """The data of the next latents."""
    seen = {name: conditions[name] for name in autoencoder.decoder_conditions if name in conditions}
    with in_float32(z.device):
        mean = stream(z, seen).mean
    assert mean is not None
    return autoencoder.data.unscale(mean)


def _drawn(
    autoencoder: Autoencoder, generators: list[torch.Generator], z: Tensor, conditions: Mapping[str, Tensor]
) -> Tensor:
    """Of each stream a sample by its own generator."""
    rows = []
    for i, generator in enumerate(generators):
        known = {name: value[i : i + 1] for name, value in conditions.items()}
        rows.append(decode_latents(autoencoder, z[i : i + 1], known, generator=generator))
    return torch.cat(rows)


def has_mean(autoencoder: Autoencoder) -> bool:
    """Whether the decoder's distributions have one."""
    with fakes(autoencoder.decoder):
        z = torch.zeros(1, autoencoder.quantizer.dim, *autoencoder.grid, device=device_of(autoencoder))
        return autoencoder.decode(z, {}).mean is not None
