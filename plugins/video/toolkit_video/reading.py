"""Reading video files: when each frame is shown, and some frames without decoding the whole file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import Interpolation, VideoReformatter

from toolkit import ToolkitError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

FORMATS = {1: "gray", 3: "rgb24"}
"""What frames are converted to, by channels."""
ACCURATE = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
SHRINKING, KEEPING = Interpolation.AREA | ACCURATE, Interpolation.BICUBIC | ACCURATE
"""Interpolation of pixels: area means restore a frame that was enlarged by a whole factor."""
DEFAULT_RATE = Fraction(25)
"""Frames per second of a file that does not state it."""
INEXACT_SEEK = ("mpeg",)
"""Formats that seek by guessing, and then report other times."""
SKIPS_FRAMES = ("h264", "mpeg1video", "mpeg2video", "mpeg4")
"""Decoders that can skip exactly the frames on which no other depends."""
CENTER = (0.5, 0.5)
TRUSTED = 0.02
"""Relative difference up to which the rate that a file states is preferred to the mean of its frames."""


class Timeline(NamedTuple):
    """When a file's frames are shown, in this order."""

    base: Fraction
    """Seconds of one tick."""
    rate: float
    """Frames per second; 0 for a single frame."""
    ticks: np.ndarray
    """Of each frame ``(frames,)``, int64, ascending."""
    keys: np.ndarray
    """Of the frames from which decoding can begin ``(keys,)``."""
    counted: bool
    """Whether the file does not state when its frames are shown, so that a tick is a frame's number."""

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


def read_timeline(path: Path) -> Timeline:
    """The timeline of the first video stream in a file; ToolkitError if there is none, or it is cut short.

    It is decoded only if its packets do not state when they are shown.
    """
    with _opened(path) as (container, stream):
        packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
        ticks = [packet.pts for packet in packets if packet.pts is not None]
        keys = [packet.pts for packet in packets if packet.pts is not None and packet.is_keyframe]
        base, announced, rate = stream.time_base or Fraction(1), stream.frames, stream.average_rate
        # frames are reordered but packets are not: their times are a guess
        guessed = stream.codec_context.has_b_frames and ticks == sorted(ticks)
    if guessed or len(set(ticks)) < len(packets):
        return _decoded_timeline(path)
    if not keys:
        raise ToolkitError(f"{path}: has no frames")
    if len(ticks) < announced:
        raise ToolkitError(f"{path}: cut short, it has {len(ticks)} of {announced} frames")
    return _timeline([tick for tick in ticks if tick >= min(keys)], keys, base, rate)


def _decoded_timeline(path: Path) -> Timeline:
    """By the times of the decoded frames, or by counting them."""
    with _opened(path) as (container, stream):
        frames = [(frame.pts, frame.key_frame) for frame in container.decode(stream)]
        base, rate = stream.time_base or Fraction(1), stream.average_rate or stream.guessed_rate
    if not frames:
        raise ToolkitError(f"{path}: has no frames")
    ticks = [tick for tick, _ in frames if tick is not None]
    if len(ticks) == len(frames) and all(a < b for a, b in pairwise(ticks)):
        return _timeline(ticks, [tick for tick, key in frames if key and tick is not None] or ticks[:1], base, rate)
    return _timeline(list(range(len(frames))), [0], 1 / (rate or DEFAULT_RATE), rate)._replace(counted=True)


def _timeline(ticks: list[int], keys: list[int], base: Fraction, rate: Fraction | None) -> Timeline:
    ticks = sorted(ticks)
    return Timeline(base, _rate(ticks, base, rate), np.array(ticks, np.int64), np.array(sorted(keys), np.int64), False)


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

    Only the frames from the nearest keyframe before the first of them to the last are decoded. Frames are rotated as
    the file says, and shrunk until they just cover ``size`` (height, width; None: unchanged). ToolkitError if the file
    cannot be read, or no longer has the frames; ValueError, without the name of the file, if they are smaller.
    """
    ticks = timeline.ticks[np.asarray(numbers)]
    convert = _Converter(channels, size)
    with _opened(path) as (container, stream):
        frames = _wanted(container, stream, timeline, set(ticks.tolist()))
        converted = {tick: convert(frame) for tick, frame in frames}
    missing = [tick for tick in ticks.tolist() if tick not in converted]
    if missing:
        seconds = float((missing[0] - timeline.ticks[0]) * timeline.base)
        raise ToolkitError(f"{path}: cut short or changed, no frame at {seconds:.2f} s")
    return np.stack([converted[tick] for tick in ticks.tolist()])


class _Converter:
    """Frames to arrays ``(height, width, channels)``."""

    def __init__(self, channels: int, size: tuple[int, int] | None) -> None:
        self.format, self.channels, self.size = FORMATS[channels], channels, size
        self.reformatter = VideoReformatter()  # keeps its tables from frame to frame

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        turn = _turn(frame)
        height, width = (frame.width, frame.height) if turn[0] else (frame.height, frame.width)
        wanted = self.size or (height, width)
        if height < wanted[0] or width < wanted[1]:
            raise ValueError(
                f"the frames are {width} x {height} (width x height), "
                f"smaller than the required {wanted[1]} x {wanted[0]}"
            )
        scale = max(wanted[0] / height, wanted[1] / width)
        cover = (max(wanted[0], round(height * scale)), max(wanted[1], round(width * scale)))
        stored = cover[::-1] if turn[0] else cover
        how = KEEPING if stored == (frame.height, frame.width) else SHRINKING
        converted = self.reformatter.reformat(
            frame, width=stored[1], height=stored[0], format=self.format, interpolation=how
        )
        return _turned(converted.to_ndarray().reshape(*stored, self.channels), turn)


def crop(frames: np.ndarray, size: tuple[int, int], centering: tuple[float, float] = CENTER) -> np.ndarray:
    """A window of every frame ``(n, *size, channels)``; ``centering`` places it, from (0, 0), left and top, to (1, 1),
    right and bottom."""
    height, width = size
    left = round((frames.shape[2] - width) * centering[0])
    top = round((frames.shape[1] - height) * centering[1])
    return frames[:, top : top + height, left : left + width]


def _turn(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Whether a frame is shown transposed, and then mirrored from right to left, and from bottom to top."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(cast("bytes", matrix), np.int32)[:5].tolist()  # x' = a x + c y, y' = b x + d y
    exchanged = abs(a) < abs(b)
    return (True, c < 0, b < 0) if exchanged else (False, a < 0, d < 0)


def _turned(pixels: np.ndarray, turn: tuple[bool, bool, bool]) -> np.ndarray:
    exchanged, mirrored, upturned = turn
    if exchanged:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if upturned else 1, :: -1 if mirrored else 1]


def _wanted(
    container: InputContainer, stream: VideoStream, timeline: Timeline, wanted: set[int]
) -> Iterator[tuple[int, VideoFrame]]:
    """The frames at these ticks, each with its tick."""
    first = min(wanted)
    key = int(timeline.keys[max(0, int(np.searchsorted(timeline.keys, first, side="right")) - 1)])
    seeks = key > timeline.keys[0] and container.format.name not in INEXACT_SEEK
    if seeks:
        container.seek(key, stream=stream)
    left, number = set(wanted), 0
    for packet in container.demux(stream):
        _skip_unless_wanted(stream, packet, timeline, left)
        for frame in packet.decode():
            tick = number if timeline.counted else frame.pts
            number += 1
            if tick in left:
                left.discard(tick)
                yield tick, frame
        if not left:
            return
    if seeks:  # the seek missed the keyframe: decode from the beginning
        container.seek(0)
        yield from _wanted(container, stream, timeline._replace(keys=timeline.keys[:1]), left)


def _skip_unless_wanted(stream: VideoStream, packet: Packet, timeline: Timeline, wanted: set[int]) -> None:
    """Skips a frame that is not wanted and on which no other depends."""
    if stream.codec_context.name in SKIPS_FRAMES and not timeline.counted:
        stream.codec_context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A file and its first video stream; FFmpeg's errors become a ToolkitError that names the file."""
    if path.is_file() and not path.stat().st_size:
        raise ToolkitError(f"{path}: the file is empty")
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            # a song's cover picture is not a video
            videos = [video for video in container.streams.video if not video.disposition & Disposition.attached_pic]
            if not videos:
                raise ToolkitError(f"{path}: has no video")
            if getattr(videos[0], "codec_context", None) is None:
                raise ToolkitError(f"{path}: FFmpeg does not support the codec of its video")
            videos[0].codec_context.thread_count = 1  # many clips are loaded in parallel
            yield container, videos[0]
    except FileNotFoundError as error:
        raise ToolkitError(f"{path}: the file does not exist (any more)") from error
    except EOFError as error:
        raise ToolkitError(f"{path}: has no frames") from error
    except (av.FFmpegError, OSError) as error:
        raise ToolkitError(f"{path}: cannot be read as video ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    """FFmpeg's message without the error number and the path."""
    return str(getattr(error, "strerror", None) or error)
