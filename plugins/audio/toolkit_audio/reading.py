"""Reading sound files: lengths, and spans of samples without decoding the whole file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

import av
import numpy as np

from toolkit import ToolkitError
from toolkit_audio.frames import Mark, Piece, begin, exact, opened, run_in, without_what_is_before

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

MARGIN = 0.02
"""Seconds decoded on either side of a span that is resampled, so that the filter sees no edge."""
NEAR, SPACING = 20.0, 5.0
"""Seconds after which there are places from which decoding may begin, and between them."""
COMPRESSED = 10
"""How many times smaller than PCM sound in FLAC may be, for its header to be believed without counting."""
PLANES = 8
"""Channels from which on PyAV reads beyond the last plane of a frame, and crashes."""
INTEGERS = re.compile(r"pcm_[su](\d+)(?:le|be)?")
NOTHING = np.zeros(0, np.float32)


class Header(NamedTuple):
    """Rate and length of a sound file."""

    rate: int
    """Samples per second."""
    samples: int
    """Per channel."""


class Survey(NamedTuple):
    """What reading a file takes to know."""

    header: Header
    marks: tuple[Mark, ...]
    """Where decoding may begin without changing what is decoded, ascending.

    None in short files, in those in which FFmpeg seeks to the sample, and in those that must be decoded from the
    beginning, as what is decoded depends on all before it.
    """


def read_header(path: Path) -> Header:
    """Rate and length of the first audio stream in a file, as of ``survey``."""
    return survey(path).header


def survey(path: Path) -> Survey:
    """The true length of a file, and where decoding may begin.

    The header of a file of integer PCM, or of FLAC, is believed where the file's size agrees with it. What other
    headers state is rounded or estimated: the file is decoded, and its samples are counted. ToolkitError if the file
    has no sound, has less than a FLAC or MP4 header promises, or samples that are no finite numbers.
    """
    with opened(path) as (container, stream):
        announced = _announced(stream)
        if announced and _believed(path, container, stream, announced):
            return Survey(Header(stream.rate, announced), ())
    counted = _counted(path)
    if not counted.header.samples:
        raise ToolkitError(f"{path}: has no sound, not one sample")
    return counted


def read_span(path: Path, start: int, stop: int | None, rate: int, marks: Sequence[Mark] = ()) -> np.ndarray:
    """Samples ``start..stop`` (None: to the end) at ``rate`` per second: mono, float32.

    Channels are averaged. Frames follow each other, whatever times the file gives them; where a frame begins later
    than rounding explains, there is silence before it. Only the span and some frames before it are decoded, if the
    file is one in which FFmpeg seeks to the sample, or with the ``marks`` of its survey; else all from the first
    sample on. If the file has another rate, the span is resampled. ToolkitError if the file cannot be read, is shorter
    than ``stop`` or than a FLAC or MP4 header promises, or has samples that are no finite numbers.
    """
    with opened(path) as (container, stream):
        span = _span(stream.rate, start, stop, rate)
        pieces = begin(container, stream, span.start, marks)
        if pieces is not None:
            return _cut(_joined(path, container, stream, pieces, span), span, stream.rate, rate)
    with opened(path) as (container, stream):
        pieces = begin(container, stream, 0)
        return _cut(_joined(path, container, stream, pieces or iter(()), span), span, stream.rate, rate)


def read_pieces(path: Path, rate: int) -> Iterator[np.ndarray]:
    """All samples at ``rate`` per second, as ``read_span`` reads them, some at a time."""
    with opened(path) as (container, stream):
        pieces = begin(container, stream, 0) or iter(())
        sounds = _sounds(path, container, stream, pieces, _span(stream.rate, 0, None, rate))
        yield from resampled(sounds, stream.rate, rate)


def resample(sound: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Mono float32 at another rate, by FFmpeg's windowed sinc; sample 0 stays sample 0."""
    parts = list(resampled(iter((sound,)), rate, wanted))
    return np.concatenate(parts) if parts else NOTHING


def resampled(sounds: Iterable[np.ndarray], rate: int, wanted: int) -> Iterator[np.ndarray]:
    """``resample`` for sound in pieces."""
    if rate == wanted:
        yield from sounds
        return
    resampler = av.AudioResampler(format="flt", layout="mono", rate=wanted)
    given = done = 0
    for sound in chain(sounds, (None,)):
        if sound is not None:
            if not len(sound):
                continue
            given += len(sound)
        elif not given:
            return
        for part in resampler.resample(_framed(sound, rate)):
            piece = part.to_ndarray()[0]
            # what follows the last sample is the filter's own; only then it is known which that is
            piece = piece if sound is not None else piece[: max(0, length_at(given, rate, wanted) - done)]
            done += len(piece)
            yield piece


def _framed(sound: np.ndarray | None, rate: int) -> AudioFrame | None:
    """A frame for the resampler; None asks for its rest."""
    if sound is None:
        return None
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[None]), format="flt", layout="mono")
    frame.sample_rate = rate
    return frame


def length_at(samples: int, rate: int, wanted: int) -> int:
    """The number of samples at the rate ``wanted``, from that at ``rate``."""
    return samples * wanted // rate


def _announced(stream: AudioStream) -> int:
    """The length that a file's header states; 0 if none."""
    if stream.duration is None or stream.time_base is None:
        return 0
    return max(0, round(stream.duration * stream.time_base * stream.rate))


def _believed(path: Path, container: InputContainer, stream: AudioStream, announced: int) -> bool:
    """Whether the length in a header is exact, and there are bytes for it."""
    name, size = stream.codec_context.name, path.stat().st_size
    if container.format.name == "flac":  # a header that promises far more than there is, or silence
        return announced * stream.channels * stream.format.bits <= COMPRESSED * 8 * size
    integers = INTEGERS.fullmatch(name)
    if not exact(container, stream) or not integers:
        return False
    return announced * stream.channels * int(integers[1]) <= 8 * size


def _counted(path: Path) -> Survey:
    """By decoding all of a file."""
    marks: list[Mark] = []
    checks: dict[int, int] = {}
    with opened(path) as (container, stream):
        marking = not exact(container, stream) and stream.channels < PLANES
        floats = stream.codec_context.name.startswith("pcm_f")
        samples, due = 0, round(NEAR * stream.rate)
        for piece in begin(container, stream, 0) or ():
            if marking and piece.at >= due and piece.first and piece.packet.pts is not None:
                marks.append(Mark(piece.packet.pts, crc32(piece.packet), piece.at))
                due = piece.at + round(SPACING * stream.rate)
            if marks:
                checks[piece.at] = crc32(piece.frame.to_ndarray().tobytes())
            if floats:
                _require_finite(path, _mono(piece.frame), piece.at)
            samples = piece.at + piece.frame.samples
        if samples < (promised := _promised(container, stream)):
            raise ToolkitError(f"{path}: cut short, it ends at sample {samples} of {promised}")
        header = Header(stream.rate, samples)
    return Survey(header, tuple(marks) if marks and _settles(path, marks, checks) else ())


def _settles(path: Path, marks: Sequence[Mark], checks: dict[int, int]) -> bool:
    """Whether decoding from the first mark on leads to the samples that decoding from the beginning led to.

    Not so with AC-3, nor with AAC that has noise in place of bands: it is drawn from a generator that only all frames
    before bring to its state.
    """
    with opened(path) as (container, stream):
        first = marks[0].sample + run_in(stream)
        pieces = without_what_is_before(container, stream, marks[0]) or ()
        again = {piece.at: crc32(piece.frame.to_ndarray().tobytes()) for piece in pieces if piece.at >= first}
    return again == {at: check for at, check in checks.items() if at >= first}


def _promised(container: InputContainer, stream: AudioStream) -> int:
    """Samples without which a file is cut short, where its header lists all that it has; else 0."""
    if container.format.name == "flac":
        return _announced(stream)
    return _announced(stream) - stream.rate // 5 if "mp4" in container.format.name.split(",") else 0


class _Span(NamedTuple):
    """What is decoded for some samples at a rate, in samples at the file's own."""

    start: int
    needed: int | None
    """Up to which samples must be there; None: to the end."""
    stop: int | None
    """Up to which they are taken if they are there."""
    skipped: int
    """Samples at the wanted rate before those wanted."""
    length: int | None
    """Samples wanted, at the wanted rate."""


def _span(own: int, start: int, stop: int | None, rate: int) -> _Span:
    length = None if stop is None else stop - start
    if own == rate:
        return _Span(start, stop, stop, 0, length)
    # the last time before the span, less the margin, at which samples of both rates coincide
    step, wanted = own // gcd(own, rate), rate // gcd(own, rate)
    block = max(0, (start - round(MARGIN * rate)) // wanted)
    needed = None if stop is None else stop * step // wanted
    last = None if stop is None else (stop + round(MARGIN * rate)) * step // wanted
    return _Span(block * step, needed, last, start - block * wanted, length)


def _cut(sound: np.ndarray, span: _Span, own: int, rate: int) -> np.ndarray:
    return resample(sound, own, rate)[span.skipped :][: span.length]


def _joined(
    path: Path, container: InputContainer, stream: AudioStream, pieces: Iterable[Piece], span: _Span
) -> np.ndarray:
    """The samples of a span at the file's own rate, mono; zeros where a hole is."""
    parts = list(_sounds(path, container, stream, pieces, span))
    return np.concatenate(parts) if parts else NOTHING


def _sounds(
    path: Path, container: InputContainer, stream: AudioStream, pieces: Iterable[Piece], span: _Span
) -> Iterator[np.ndarray]:
    """``_joined``, frame by frame."""
    at = span.start
    wanted = (piece for piece in pieces if piece.at + piece.frame.samples > span.start)
    for piece in _packed(wanted, stream):
        if span.stop is not None and at >= span.stop:
            break
        ends = piece.at if span.stop is None else min(piece.at, span.stop)
        sound = _mono(piece.frame)[max(0, at - piece.at) :]
        if ends > at:
            sound = np.concatenate((np.zeros(ends - at, np.float32), sound))
        sound = sound[: None if span.stop is None else span.stop - at]
        _require_finite(path, sound, at)
        yield sound
        at += len(sound)
    needed = _promised(container, stream) if span.needed is None else span.needed
    if at < needed:
        raise ToolkitError(f"{path}: cut short, it ends at sample {at} of {needed}")


def _packed(pieces: Iterable[Piece], stream: AudioStream) -> Iterator[Piece]:
    """Frames with interleaved channels, for which PyAV looks for no planes."""
    if not stream.format.is_planar:
        yield from pieces
        return
    packer = av.AudioResampler(format=stream.format.packed, layout=stream.layout, rate=stream.rate)
    for piece in pieces:
        (frame,) = packer.resample(piece.frame)
        yield piece._replace(frame=frame)


def _mono(frame: AudioFrame) -> np.ndarray:
    """The mean of the channels, float32 in [-1, 1]."""
    samples = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is told by the caller, who knows the file
        sound: np.ndarray = samples.astype(np.float32)
        if samples.dtype == np.uint8:
            sound = (sound - 128) / 128
        elif samples.dtype.kind == "i":
            sound /= 2.0 ** (8 * samples.itemsize - 1)
        mean: np.ndarray = sound.mean(1)
    return mean


def _require_finite(path: Path, sound: np.ndarray, first: int) -> None:
    finite = np.isfinite(sound)
    if not finite.all():
        place = int(finite.argmin())
        raise ToolkitError(f"{path}: cannot be read as sound (sample {first + place} is {sound[place]})")
