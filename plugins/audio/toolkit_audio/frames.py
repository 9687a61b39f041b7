"""Decoded frames of a sound file, one after the other, from its first sample or from a place that is known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, dropwhile
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, NamedTuple, cast
from zlib import crc32

import av

from toolkit import ToolkitError

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet

EARLY = 0.1
"""Seconds before a span at which decoding begins, where a seek is exact and frames do not depend on each other."""
RUN_IN, FRAMES = 0.5, 10 * 2048
"""Seconds and samples that are decoded before a span, whichever is more, where frames depend on the ones before."""
HOLE = 0.05
"""Seconds that a frame may begin late without silence before it; files round their times, and some count them wrong."""
JUMP = 60.0
"""Seconds from which on a late frame is a clock that was set, not a hole."""
PLAIN = ("wav", "w64", "aiff", "au", "caf", "flac")
"""Containers in which FFmpeg seeks to the sample, where they contain PCM or FLAC."""
RATES = range(100, 50_000_000)
"""Samples per second that a file may have."""


class Mark(NamedTuple):
    """A packet from which decoding can begin."""

    tick: int
    """When it is played, in the file's own units."""
    check: int
    """CRC-32 of its bytes."""
    sample: int
    """The first sample that it decodes to."""


class Piece(NamedTuple):
    """A decoded frame."""

    at: int
    """Its first sample, counted from the file's first one."""
    frame: AudioFrame
    packet: Packet
    first: bool
    """Whether it is the first frame of its packet."""


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, AudioStream]]:
    """A file and its first audio stream; whatever it makes FFmpeg or PyAV raise is a ToolkitError that names it."""
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):  # FFmpeg would wait for a pipe without an end
            raise ToolkitError(f"{path}: cannot be read as sound (it is no file)")
        if not status.st_size:
            raise ToolkitError(f"{path}: the file is empty")
        with av.open(str(path), metadata_errors="ignore") as container:
            yield container, _stream(path, container)
    except ToolkitError:
        raise
    except FileNotFoundError as error:
        raise ToolkitError(f"{path}: the file does not exist (any more)") from error
    except EOFError as error:
        raise ToolkitError(f"{path}: cut short, it ends in the middle of a frame") from error
    except Exception as error:  # PyAV raises AttributeError, OverflowError, … for what it did not expect in a file
        raise ToolkitError(f"{path}: cannot be read as sound ({_reason(error)})") from error


def _stream(path: Path, container: InputContainer) -> AudioStream:
    if not container.streams.audio:
        raise ToolkitError(f"{path}: has no sound")
    stream = container.streams.audio[0]
    if getattr(stream, "codec_context", None) is None:
        raise ToolkitError(f"{path}: FFmpeg does not support the codec of its sound")
    if stream.rate not in RATES or not stream.channels:
        raise ToolkitError(f"{path}: cannot be read as sound ({stream.rate} Hz, {stream.channels} channels)")
    return stream


def _reason(error: Exception) -> str:
    """FFmpeg's message without the error number and the path."""
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def exact(container: InputContainer, stream: AudioStream) -> bool:
    """Whether FFmpeg seeks to the sample, and frames do not depend on each other."""
    return container.format.name in PLAIN and stream.codec_context.name.startswith(("pcm_", "flac"))


def run_in(stream: AudioStream) -> int:
    """Samples that are decoded between a mark and what is wanted."""
    return max(round(RUN_IN * stream.rate), FRAMES)


def begin(
    container: InputContainer, stream: AudioStream, start: int, marks: Sequence[Mark] = ()
) -> Iterator[Piece] | None:
    """Decoded frames of a file just opened, from one on that begins at or before the sample ``start``.

    ``marks`` are where decoding may begin, ascending; without them it begins at the first sample, unless FFmpeg seeks
    in such a file to the sample. None: a seek went elsewhere, the file must be opened anew and read from its beginning,
    as some formats begin in another way after a seek to 0.
    """
    early = start - round(EARLY * stream.rate)
    if exact(container, stream) and early > 0 and stream.time_base:
        tick = int(early / stream.rate / stream.time_base) + (stream.start_time or 0)
        return _sought_by_time(container, stream, start, tick)
    before = [mark for mark in marks if mark.sample <= start - run_in(stream)]
    if before and stream.time_base:
        return _sought_by_mark(container, stream, before[-1])
    return _placed(_packets(container.demux(stream)), stream, 0)


def _sought_by_time(container: InputContainer, stream: AudioStream, start: int, tick: int) -> Iterator[Piece] | None:
    if not _seek(container, stream, tick):
        return None
    packets = _packets(container.demux(stream))
    packet, frames = next(((packet, frames) for packet, frames in packets if frames), (None, []))
    if packet is None or frames[0].pts is None or frames[0].time_base is None:
        return None
    first = (stream.start_time or 0) * (stream.time_base or 0)  # the file may be cut from a longer one
    at = round((frames[0].pts * frames[0].time_base - first) * stream.rate)
    return _placed(chain([(packet, frames)], packets), stream, at) if at <= start else None


def _sought_by_mark(container: InputContainer, stream: AudioStream, mark: Mark) -> Iterator[Piece] | None:
    if not _seek(container, stream, mark.tick - _before(stream)):
        return None
    return _from_mark(container.demux(stream), stream, mark)


def without_what_is_before(container: InputContainer, stream: AudioStream, mark: Mark) -> Iterator[Piece] | None:
    """Decoded frames from a mark on, as after a seek, but without one: packets before are read and not decoded."""
    earliest = mark.tick - _before(stream)
    packets = dropwhile(lambda packet: packet.pts is None or packet.pts < earliest, container.demux(stream))
    return _from_mark(packets, stream, mark)


def _before(stream: AudioStream) -> int:
    """Ticks before a mark from which decoding begins: some decoders give nothing for the first packets."""
    return round(RUN_IN / (stream.time_base or 1))


def _from_mark(demuxed: Iterable[Packet], stream: AudioStream, mark: Mark) -> Iterator[Piece] | None:
    packets = _packets(demuxed)
    for packet, frames in packets:
        if packet.pts == mark.tick and frames and crc32(packet) == mark.check:
            return _placed(chain([(packet, frames)], packets), stream, mark.sample)
        if packet.pts is not None and packet.pts > mark.tick:
            return None
    return None


def _seek(container: InputContainer, stream: AudioStream, tick: int) -> bool:
    try:
        container.seek(tick, stream=stream)
    except av.FFmpegError:
        return False
    return True


def _packets(demuxed: Iterable[Packet]) -> Iterator[tuple[Packet, list[AudioFrame]]]:
    """Packets and what they decode to. One that cannot be decoded is an error, unless nothing follows but the end.

    What follows the last frame is no sound: a tag, or part of a frame.
    """
    broken: av.FFmpegError | None = None
    decoded = False
    for packet in demuxed:
        try:
            frames = cast("list[AudioFrame]", packet.decode())
        except av.InvalidDataError as error:
            broken = broken or error
            continue
        if broken is not None and frames and packet.size:
            raise broken
        decoded = decoded or bool(frames)
        yield packet, frames
    if broken is not None and not decoded:
        raise broken


def _placed(packets: Iterable[tuple[Packet, list[AudioFrame]]], stream: AudioStream, at: int) -> Iterator[Piece]:
    """Frames by the sample at which they begin, the first at ``at``: each follows the one before.

    Times of frames are rounded in many files and wrong by part of a frame in some. So a time counts only where a frame
    begins later than rounding, or a frame more, explains: then there is a hole before it.
    """
    due: float | None = None  # when the next frame begins, by its time, in samples
    for packet, frames in packets:
        for number, frame in enumerate(frames):
            if frame.sample_rate != stream.rate:
                raise ValueError(f"its rate changes from {stream.rate} to {frame.sample_rate} per second")
            if frame.pts is not None and frame.time_base is not None:
                tick = float(frame.time_base * stream.rate)
                begins = frame.pts * tick
                late = 0.0 if due is None else begins - due
                if HOLE * stream.rate + frame.samples + 2 * tick < late < JUMP * stream.rate:
                    at += round(late)
                due = begins
            yield Piece(at, frame, packet, not number)
            at += frame.samples
            due = None if due is None else due + frame.samples
