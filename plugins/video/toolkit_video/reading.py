"""Frames out of video files: when each is shown, and some of them without decoding the rest."""

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
"""How colors are found between pixels: means give a frame back that was enlarged by a whole factor."""
UNTOLD = Fraction(25)
"""Frames per second of a file that does not say."""
LOST = ("mpeg",)
"""Formats that find a place in a file by guessing, and then tell other times."""
SPARING = ("h264", "mpeg1video", "mpeg2video", "mpeg4")
"""Decoders that leave out a frame on which no other stands, and only such frames, when they are told."""
CENTRE = (0.5, 0.5)
TRUSTED = 0.02
"""By what share the rate that a file states may differ from the mean of its frames."""


class Timeline(NamedTuple):
    """When a file's frames are shown, in the order in which they are."""

    base: Fraction
    """Seconds of one tick."""
    rate: float
    """Frames per second; 0 of a single frame."""
    ticks: np.ndarray
    """Of each frame ``(frames,)``, int64, ascending."""
    keys: np.ndarray
    """Of the frames from which decoding can begin ``(keys,)``."""
    counted: bool
    """Whether the file does not say when its frames are shown, and a tick is a frame's place in it."""

    @property
    def times(self) -> np.ndarray:
        """Seconds from the first frame on ``(frames,)``."""
        times: np.ndarray = (self.ticks - self.ticks[0]) * float(self.base)
        return times

    def frames(self, rate: float) -> np.ndarray:
        """Which frame is shown at 0, 1 / rate, 2 / rate … seconds ``(n,)``, as long as there are any.

        That is the last whose time has come; a time within half a frame of the mark counts as come, as files round
        their times.
        """
        times = self.times
        early = min(1 / rate, float(np.median(np.diff(times))) if len(times) > 1 else 0.0) / 2
        marks = np.arange(int((times[-1] + early) * rate + 1e-6) + 1) / rate
        shown: np.ndarray = np.searchsorted(times, marks + early + 1e-9, side="right") - 1
        return shown


def read_timeline(path: Path) -> Timeline:
    """The timeline of the first video in a file; ToolkitError where there is none, or a part.

    It is decoded only where its packets do not say when they are shown.
    """
    with _opened(path) as (container, stream):
        packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
        ticks = [packet.pts for packet in packets if packet.pts is not None]
        keys = [packet.pts for packet in packets if packet.pts is not None and packet.is_keyframe]
        base, announced, rate = stream.time_base or Fraction(1), stream.frames, stream.average_rate
        # frames that change places, in packets that do not: their times are a guess
        guessed = stream.codec_context.has_b_frames and ticks == sorted(ticks)
    if guessed or len(set(ticks)) < len(packets):
        return _decoded_timeline(path)
    if not keys:
        raise ToolkitError(f"{path}: there is not one frame in it")
    if len(ticks) < announced:
        raise ToolkitError(f"{path}: cut short, {len(ticks)} of {announced} frames are there")
    return _timeline([tick for tick in ticks if tick >= min(keys)], keys, base, rate)


def _decoded_timeline(path: Path) -> Timeline:
    """By what the frames say, or by counting them."""
    with _opened(path) as (container, stream):
        frames = [(frame.pts, frame.key_frame) for frame in container.decode(stream)]
        base, rate = stream.time_base or Fraction(1), stream.average_rate or stream.guessed_rate
    if not frames:
        raise ToolkitError(f"{path}: there is not one frame in it")
    ticks = [tick for tick, _ in frames if tick is not None]
    if len(ticks) == len(frames) and all(a < b for a, b in pairwise(ticks)):
        return _timeline(ticks, [tick for tick, key in frames if key and tick is not None] or ticks[:1], base, rate)
    return _timeline(list(range(len(frames))), [0], 1 / (rate or UNTOLD), rate)._replace(counted=True)


def _timeline(ticks: list[int], keys: list[int], base: Fraction, rate: Fraction | None) -> Timeline:
    ticks = sorted(ticks)
    return Timeline(base, _rate(ticks, base, rate), np.array(ticks, np.int64), np.array(sorted(keys), np.int64), False)


def _rate(ticks: list[int], base: Fraction, told: Fraction | None) -> float:
    """What the file says of its rate where its frames agree, else their mean."""
    if len(ticks) < 2:
        return 0.0
    mean = (len(ticks) - 1) / float((ticks[-1] - ticks[0]) * base)
    return float(told) if told and abs(told / mean - 1) < TRUSTED else mean


def read_frames(
    path: Path,
    timeline: Timeline,
    numbers: Sequence[int] | np.ndarray,
    channels: int,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Frames of a file by their numbers ``(n, height, width, channels)``, uint8.

    Only what lies between the nearest keyframe before the first and the last of them is decoded. Frames are turned as
    the file says, and shrunk until they just cover ``size`` (height, width; None: as they are). ToolkitError where the
    file cannot be read, or no longer holds the frames; ValueError, which leaves it to the caller to name the file,
    where they are smaller.
    """
    ticks = timeline.ticks[np.asarray(numbers)]
    convert = _Converter(channels, size)
    with _opened(path) as (container, stream):
        frames = _wanted(container, stream, timeline, set(ticks.tolist()))
        made = {tick: convert(frame) for tick, frame in frames}
    missing = [tick for tick in ticks.tolist() if tick not in made]
    if missing:
        seconds = float((missing[0] - timeline.ticks[0]) * timeline.base)
        raise ToolkitError(f"{path}: cut short or changed, there is no frame at {seconds:.2f} s")
    return np.stack([made[tick] for tick in ticks.tolist()])


class _Converter:
    """Frames to arrays ``(height, width, channels)``, one like the other."""

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
                f"smaller than the {wanted[1]} x {wanted[0]} that are needed"
            )
        scale = max(wanted[0] / height, wanted[1] / width)
        cover = (max(wanted[0], round(height * scale)), max(wanted[1], round(width * scale)))
        stored = cover[::-1] if turn[0] else cover
        how = KEEPING if stored == (frame.height, frame.width) else SHRINKING
        converted = self.reformatter.reformat(
            frame, width=stored[1], height=stored[0], format=self.format, interpolation=how
        )
        return _turned(converted.to_ndarray().reshape(*stored, self.channels), turn)


def crop(frames: np.ndarray, size: tuple[int, int], centering: tuple[float, float] = CENTRE) -> np.ndarray:
    """A window of every frame ``(n, *size, channels)``; ``centering`` places it, from (0, 0), left and top, to (1, 1),
    right and bottom."""
    height, width = size
    left = round((frames.shape[2] - width) * centering[0])
    top = round((frames.shape[1] - height) * centering[1])
    return frames[:, top : top + height, left : left + width]


def _turn(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Whether a frame is shown with its axes exchanged, and then from right to left, and from bottom to top."""
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
    sought = key > timeline.keys[0] and container.format.name not in LOST
    if sought:
        container.seek(key, stream=stream)
    left, place = set(wanted), 0
    for packet in container.demux(stream):
        _spare(stream, packet, timeline, left)
        for frame in packet.decode():
            tick = place if timeline.counted else frame.pts
            place += 1
            if tick in left:
                left.discard(tick)
                yield tick, frame
        if not left:
            return
    if sought:  # a file in which the key is not found
        container.seek(0)
        yield from _wanted(container, stream, timeline._replace(keys=timeline.keys[:1]), left)


def _spare(stream: VideoStream, packet: Packet, timeline: Timeline, wanted: set[int]) -> None:
    """Leaves a frame out that is not wanted, and on which no other stands."""
    if stream.codec_context.name in SPARING and not timeline.counted:
        stream.codec_context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A file and its first video; what FFmpeg raises meanwhile is told as a ToolkitError that names the file."""
    if path.is_file() and not path.stat().st_size:
        raise ToolkitError(f"{path}: the file is empty")
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            films = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
            if not films:  # the picture on a song's cover is none
                raise ToolkitError(f"{path}: there is no video in it")
            if getattr(films[0], "codec_context", None) is None:
                raise ToolkitError(f"{path}: its video is of a codec that FFmpeg does not know here")
            films[0].codec_context.thread_count = 1  # who loads clips loads many at once
            yield container, films[0]
    except FileNotFoundError as error:
        raise ToolkitError(f"{path}: the file is not there (any more)") from error
    except EOFError as error:
        raise ToolkitError(f"{path}: there is not one frame in it") from error
    except (av.FFmpegError, OSError) as error:
        raise ToolkitError(f"{path}: cannot be read as video ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    """FFmpeg's own words, without the error's number and the path, which stands before them."""
    return str(getattr(error, "strerror", None) or error)
