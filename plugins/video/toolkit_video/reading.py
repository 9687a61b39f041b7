"""Reading video files: when each frame is shown, and some frames without decoding the whole file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import av
import numpy as np

from toolkit import ToolkitError
from toolkit_video.boxes import is_torn
from toolkit_video.frames import aspect_of, check, decoded, opened
from toolkit_video.pictures import Converter

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

DEFAULT_RATE = Fraction(25)
"""Frames per second of a file that does not state it."""
EXACT_CONTAINERS = {"mp4", "matroska"}
EXACT_CODECS = {"h264", "hevc", "vp9", "libvpx-vp9", "av1", "libdav1d", "libaom-av1"}
EXACT_CODECS |= {"mjpeg", "prores", "ffv1", "png", "dnxhd", "huffyuv", "ffvhuff", "utvideo", "rawvideo"}
"""Where each packet is a frame, and states when it is shown."""
WHOLE_FRAMES = (0, 1)
"""Field orders of films that are not interlaced; of others a packet may be half a frame."""
INEXACT_SEEK = ("mpeg",)
"""Formats that seek by guessing, and then report other times."""
RESUMING = EXACT_CODECS | {"mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v2", "msmpeg4", "wmv1", "wmv2", "wmv3", "vc1"}
RESUMING |= {"vp8", "libvpx", "theora", "h263", "flv", "dvvideo", "jpeg2000", "libopenjpeg", "qtrle", "cfhd"}
"""Decoders whose frames depend on nothing before the keyframe that is before them."""
SKIPS_FRAMES = ("h264",)
"""Decoders that can skip exactly the frames on which no other depends."""
TRUSTED = 0.02
"""Relative difference up to which the rate that a file states is preferred to the mean of its frames."""
NOTHING = np.zeros(0, np.int64)


class Timeline(NamedTuple):
    """When a file's frames are shown, in this order."""

    base: Fraction
    """Seconds of one tick."""
    rate: float
    """Frames per second; 0 for a single frame."""
    ticks: np.ndarray
    """Of each frame ``(frames,)``, int64, ascending."""
    keys: np.ndarray
    """Of the frames from which decoding can begin ``(keys,)``; before the first of them, it begins with the file."""
    counted: bool
    """Whether frames are found by counting those decoded, as the file's packets do not state when each is shown."""
    checks: np.ndarray = NOTHING
    """CRC-32 of the frames at ``keys``, where frames are counted: counting begins at one that is as it was."""

    @property
    def times(self) -> np.ndarray:
        """Seconds from the first frame on ``(frames,)``."""
        times: np.ndarray = (self.ticks - self.ticks[0]) * float(self.base)
        return times

    def frames(self, rate: float) -> np.ndarray:
        """Which frame is shown at 0, 1 / rate, 2 / rate … seconds ``(n,)``, to the end of the file.

        That is the last frame whose time is not later; half a frame later is tolerated, because files round their
        times.
        """
        times = self.times
        early = min(1 / rate, float(np.median(np.diff(times))) if len(times) > 1 else 0.0) / 2
        marks = np.arange(int((times[-1] + early) * rate + 1e-6) + 1) / rate
        shown: np.ndarray = np.searchsorted(times, marks + early + 1e-9, side="right") - 1
        return shown


class _Stated(NamedTuple):
    """What a packet states, without what it contains: a film's do not fit into memory."""

    pts: int | None
    dts: int | None
    key: bool
    hidden: bool
    corrupt: bool

    @classmethod
    def of(cls, packet: Packet[VideoStream]) -> _Stated:
        return cls(packet.pts, packet.dts, packet.is_keyframe, packet.is_discard, packet.is_corrupt)


def read_timeline(path: Path) -> Timeline:
    """The timeline of the first video stream in a file: of the frames that a player shows.

    Frames that an edit list, or the cut of a file, leaves out are not among them, though others may depend on them. In
    MP4 and Matroska files of common codecs, packets state when frames are shown, and only the first frame is decoded.
    Other files are decoded, and their frames counted. ToolkitError if the file has no video, or is cut short.
    """
    with opened(path, new=True) as (container, stream):
        packets = [_Stated.of(packet) for packet in container.demux(stream) if packet.size]
        if len(packets) < stream.frames and "mp4" in _names(container) and is_torn(path):
            raise ToolkitError(f"{path}: cut short, it has {len(packets)} of {stream.frames} frames")
        timeline = _stated_timeline(container, stream, packets)
        pace = _pace(packets, stream.time_base or Fraction(1), stream.average_rate or stream.guessed_rate)
    if timeline is None or _first_tick(path) != timeline.ticks[0]:
        return _counted_timeline(path, pace)
    return timeline


def _names(container: InputContainer) -> list[str]:
    return container.format.name.split(",")


def _stated_timeline(container: InputContainer, stream: VideoStream, packets: list[_Stated]) -> Timeline | None:
    """By the times of the packets; None where they are not exactly those of the frames."""
    if not EXACT_CONTAINERS & {*_names(container)} or stream.codec_context.name not in EXACT_CODECS:
        return None
    if getattr(stream.codec_context, "field_order", 0) not in WHOLE_FRAMES:
        return None
    ticks = [packet.pts for packet in packets if packet.pts is not None]
    # frames are reordered but packets are not: their times are a guess
    guessed = stream.codec_context.has_b_frames and ticks == sorted(ticks)
    if guessed or len(set(ticks)) < len(packets) or not packets or not packets[0].key:
        return None
    if any(packet.corrupt for packet in packets):
        return None
    keys = [packet.pts for packet in packets if packet.key and packet.pts is not None]
    shown = sorted(packet.pts for packet in packets if not packet.hidden and packet.pts is not None)
    shown = [tick for tick in shown if tick >= min(keys)]
    hidden = [packet.pts for packet in packets if packet.hidden and packet.pts is not None]
    if not shown or any(shown[0] < tick < shown[-1] for tick in hidden):  # an edit list of several parts
        return None
    base = stream.time_base or Fraction(1)
    resumed = np.array(sorted({*keys} & {*shown[1:]}), np.int64)
    return Timeline(base, _rate(shown, base, stream.average_rate), np.array(shown, np.int64), resumed, False)


def _first_tick(path: Path) -> int | None:
    with opened(path) as (container, stream):
        return next((frame.pts for frame in decoded(container.demux(stream))), None)


def _pace(packets: list[_Stated], base: Fraction, stated: Fraction | None) -> Fraction:
    """Frames per second by the times at which packets are decoded: what the file states if they agree, else their mean;
    a film may have been written for another rate."""
    ticks = [packet.dts for packet in packets if packet.dts is not None]
    if len(ticks) < 2 or max(ticks) == min(ticks):
        return stated or DEFAULT_RATE
    mean = (len(ticks) - 1) / ((max(ticks) - min(ticks)) * base)
    return stated if stated and abs(stated / mean - 1) < TRUSTED else mean


def _counted_timeline(path: Path, pace: Fraction) -> Timeline:
    """By decoding all frames; ``pace`` in frames per second, where they do not state when they are shown."""
    with opened(path) as (container, stream):
        resumes = stream.codec_context.name in RESUMING and container.format.name not in INEXACT_SEEK
        ticks: list[int | None] = []
        keys: dict[int, int] = {}
        for frame in decoded(container.demux(stream)):
            if resumes and frame.key_frame and ticks and frame.pts is not None:
                keys[frame.pts] = check(frame)
            ticks.append(frame.pts)
        base, rate = stream.time_base or Fraction(1), stream.average_rate
    if not ticks:
        raise ToolkitError(f"{path}: has no frames")
    stated = [tick for tick in ticks if tick is not None]
    if len(stated) < len(ticks) or any(a >= b for a, b in pairwise(stated)):
        base, rate, stated, keys = 1 / pace, pace, list(range(len(ticks))), {}
    places, checks = (np.array([*numbers], np.int64) for numbers in (keys.keys(), keys.values()))
    return Timeline(base, _rate(stated, base, rate), np.array(stated, np.int64), places, True, checks)


def _rate(ticks: list[int], base: Fraction, stated: Fraction | None) -> float:
    """The rate that the file states, if its frames agree, else their mean."""
    if len(ticks) < 2:
        return 0.0
    mean = (len(ticks) - 1) / float((ticks[-1] - ticks[0]) * base)
    return float(stated) if stated and abs(stated / mean - 1) < TRUSTED else mean


def read_frames(
    path: Path,
    timeline: Timeline,
    numbers: Sequence[int] | np.ndarray,
    channels: int,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Frames of a file by their numbers ``(n, height, width, channels)``, uint8.

    Only the frames from the nearest keyframe before the first of them to the last are decoded. Frames have the shape
    in which they are shown, turned and stretched as the file says, and are shrunk until they just cover ``size``
    (height, width; None: unchanged). ToolkitError if the file cannot be read, or no longer has the frames; ValueError,
    without the name of the file, if they are smaller.
    """
    wanted = np.asarray(numbers).tolist()
    converted: dict[int, np.ndarray] = {}
    for key in _places(timeline, min(wanted)):
        with opened(path) as (container, stream):
            convert = Converter(channels, size, aspect_of(stream))
            for number, frame in _wanted(container, stream, timeline, key, {*wanted} - {*converted}):
                converted[number] = convert(frame)
        if len(converted) == len({*wanted}):
            break
    missing = [number for number in wanted if number not in converted]
    if missing:
        raise _lost(path, timeline, missing[0])
    first = converted[wanted[0]]
    for pixels in converted.values():
        _require_same(path, first, pixels)
    return np.stack([converted[number] for number in wanted])


def stream_frames(
    path: Path, timeline: Timeline, numbers: Sequence[int] | np.ndarray, channels: int, size: tuple[int, int]
) -> Iterator[np.ndarray]:
    """The frames that ``read_frames`` gives for ascending numbers, one after the other, however many: the file is
    decoded once, from its beginning."""
    wanted = np.asarray(numbers)
    counts = Counter(wanted.tolist())
    first: np.ndarray | None = None
    with opened(path) as (container, stream):
        convert = Converter(channels, size, aspect_of(stream))
        for number, frame in _wanted(container, stream, timeline, None, set(counts)):
            pixels = convert(frame)
            first = pixels if first is None else first
            _require_same(path, first, pixels)
            yield from (pixels for _ in range(counts.pop(number)))
    if counts:
        raise _lost(path, timeline, min(counts))


def _lost(path: Path, timeline: Timeline, number: int) -> ToolkitError:
    return ToolkitError(f"{path}: cut short or changed, no frame at {timeline.times[number]:.2f} s")


def _require_same(path: Path, first: np.ndarray, frame: np.ndarray) -> None:
    if first.shape != frame.shape:
        (height, width), (higher, wider) = first.shape[:2], frame.shape[:2]
        raise ToolkitError(f"{path}: its frames change from {width} x {height} to {wider} x {higher} (width x height)")


def _places(timeline: Timeline, first: int) -> Iterator[int | None]:
    """Where decoding may begin: at a key, or, if that is not there, with the file."""
    key = int(np.searchsorted(timeline.keys, timeline.ticks[first], side="right")) - 1
    if key >= 0:
        yield key
    yield None


def _wanted(
    container: InputContainer, stream: VideoStream, timeline: Timeline, key: int | None, wanted: set[int]
) -> Iterator[tuple[int, VideoFrame]]:
    """The frames of these numbers, each with its number, as far as they are there."""
    if key is not None:
        try:
            container.seek(int(timeline.keys[key]), stream=stream)
        except av.FFmpegError:
            return
    left = set(wanted)
    for number, frame in _numbered(container, stream, timeline, key, left):
        if number in left:
            left.discard(number)
            yield number, frame
        if not left:
            return


def _numbered(
    container: InputContainer, stream: VideoStream, timeline: Timeline, key: int | None, wanted: set[int]
) -> Iterator[tuple[int, VideoFrame]]:
    packets = container.demux(stream)
    if not timeline.counted:
        numbers = {int(timeline.ticks[number]): number for number in wanted}
        for frame in decoded(_spared(packets, stream, {*numbers})):
            if frame.pts in numbers:
                yield numbers[frame.pts], frame
    elif key is None:
        yield from enumerate(decoded(packets))
    else:
        yield from _counted_from(decoded(packets), timeline, key)


def _counted_from(frames: Iterator[VideoFrame], timeline: Timeline, key: int) -> Iterator[tuple[int, VideoFrame]]:
    """Frames from a key on; none where it is not there, or is another one."""
    tick = int(timeline.keys[key])
    for frame in frames:
        if frame.pts == tick:
            if check(frame) == timeline.checks[key]:
                number = int(np.searchsorted(timeline.ticks, tick))
                yield number, frame
                yield from enumerate(frames, number + 1)
            return
        if frame.pts is not None and frame.pts > tick:
            return


def _spared(
    packets: Iterator[Packet[VideoStream]], stream: VideoStream, ticks: set[int]
) -> Iterator[Packet[VideoStream]]:
    """Packets, of which the decoder skips those that are not wanted and on which no other depends."""
    for packet in packets:
        if stream.codec_context.name in SKIPS_FRAMES:
            stream.codec_context.skip_frame = "DEFAULT" if packet.pts in ticks else "NONREF"
        yield packet
