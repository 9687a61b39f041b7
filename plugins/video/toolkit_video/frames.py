"""Decoded frames of a video file, as FFmpeg shows them, and the faults of files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING
from zlib import crc32

import av
from av.stream import Disposition

from toolkit import ToolkitError
from toolkit_video.boxes import claimed_samples
from toolkit_video.pictures import TooSmallError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

PIXELS = 1 << 26
"""Pixels of a frame, at most."""
STRETCH = 16
"""How many times wider than high a pixel may be, or higher than wide."""
PLAYLISTS = {"concat", "dash", "hls", "imf", "rtp", "rtsp", "sap", "sdp", "webm_dash_manifest"}
"""Formats whose files name other files, or addresses."""
OPENED = {"format_whitelist": ",".join(sorted(av.formats_available - PLAYLISTS))}


@contextmanager
def opened(path: Path, *, new: bool = False) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A file and its first video stream; whatever it makes FFmpeg or PyAV raise is a ToolkitError that names it.

    ``new``: whether nothing is known of the file, so that its tables are looked at before FFmpeg reads them.
    """
    try:
        _check_size(path, new)
        with av.open(str(path), metadata_errors="ignore", options=OPENED) as container:
            yield container, _stream(path, container)
    except (ToolkitError, TooSmallError):
        raise
    except FileNotFoundError as error:
        raise ToolkitError(f"{path}: the file does not exist (any more)") from error
    except EOFError as error:
        raise ToolkitError(f"{path}: has no frames") from error
    except Exception as error:  # PyAV raises AttributeError, OverflowError, … for what it did not expect in a file
        raise ToolkitError(f"{path}: cannot be read as video ({_reason(error)})") from error


def _check_size(path: Path, new: bool) -> None:
    """ToolkitError if FFmpeg would wait for ever, or make room for what is not there."""
    status = path.stat()
    if not S_ISREG(status.st_mode):
        raise ToolkitError(f"{path}: cannot be read as video (it is no file)")
    if not status.st_size:
        raise ToolkitError(f"{path}: the file is empty")
    if new and (samples := claimed_samples(path)) > status.st_size:
        raise ToolkitError(f"{path}: cut short, it states {samples} samples in {status.st_size} bytes")


def _stream(path: Path, container: InputContainer) -> VideoStream:
    # a song's cover picture is not a video
    videos = [video for video in container.streams.video if not video.disposition & Disposition.attached_pic]
    if not videos:
        raise ToolkitError(f"{path}: has no video")
    stream = videos[0]
    context = getattr(stream, "codec_context", None)
    if context is None:
        raise ToolkitError(f"{path}: FFmpeg does not support the codec of its video")
    if context.width * context.height > PIXELS:
        raise ToolkitError(f"{path}: its frames are {context.width} x {context.height}, more than {PIXELS} pixels")
    if not 1 / STRETCH <= aspect_of(stream) <= STRETCH:
        raise ToolkitError(f"{path}: its pixels are {float(aspect_of(stream)):.4g} times as wide as they are high")
    context.options = {"max_pixels": str(PIXELS)}
    context.thread_count = 1  # many clips are loaded in parallel
    return stream


def aspect_of(stream: VideoStream) -> Fraction:
    """The width of a pixel over its height."""
    return stream.sample_aspect_ratio or Fraction(1)


def _reason(error: Exception) -> str:
    """FFmpeg's message without the error number and the path."""
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def decoded(packets: Iterable[Packet[VideoStream]]) -> Iterator[VideoFrame]:
    """The frames that are shown, in order.

    A packet that cannot be decoded is an error, unless it comes before the first frame or after the last: a recording
    may begin and end anywhere.
    """
    broken: av.FFmpegError | None = None
    shown = False
    for packet in packets:
        try:
            frames = packet.decode()
        except av.InvalidDataError as error:
            broken = broken or error
            continue
        if broken is not None and frames and packet.size:
            if shown:
                raise broken
            broken = None
        shown = shown or bool(frames)
        yield from frames
    if broken is not None and not shown:
        raise broken


def check(frame: VideoFrame) -> int:
    """CRC-32 of what a frame shows in gray."""
    return crc32(frame.reformat(format="gray").to_ndarray().tobytes())
