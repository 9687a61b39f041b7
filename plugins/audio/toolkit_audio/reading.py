"""Reading sound files: headers, and spans of samples without decoding the whole file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import av
import numpy as np

from toolkit import ToolkitError

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

MARGIN = 0.02
"""Seconds decoded on either side of a span that is resampled, so that the filter sees no edge."""
EARLY = 0.1
"""Seconds before a span at which decoding begins: lossy formats need some frames to settle."""


class Header(NamedTuple):
    """Rate and length of a sound file."""

    rate: int
    """Samples per second."""
    samples: int
    """Per channel."""


def read_header(path: Path) -> Header:
    """The header of the first audio stream in a file; ToolkitError if there is none."""
    with _opened(path) as (container, stream):
        length = _announced(container, stream)
        if length is None:  # the stream does not state it
            length = sum(frame.samples for frame in container.decode(stream))
        if not length:
            raise ToolkitError(f"{path}: has no sound, not one sample")
        return Header(stream.rate, length)


def read_span(path: Path, start: int, stop: int | None, rate: int) -> np.ndarray:
    """Samples ``start..stop`` (None: to the end) at ``rate`` per second: mono, float32.

    Channels are averaged. Only the span is decoded and, if the file has another rate, resampled. ToolkitError if the
    file cannot be read, or is shorter than its header says.
    """
    with _opened(path) as (container, stream):
        if stream.rate == rate:
            return _decoded(path, container, stream, start, None if stop is None else (stop, stop))
        # the last time before the span, less the margin, at which samples of both rates coincide
        own, wanted = stream.rate // gcd(stream.rate, rate), rate // gcd(stream.rate, rate)
        block = max(0, (start - round(MARGIN * rate)) // wanted)
        last = None if stop is None else (stop * own // wanted, (stop + round(MARGIN * rate)) * own // wanted)
        sound = resample(_decoded(path, container, stream, block * own, last), stream.rate, rate)
        return sound[start - block * wanted :][: None if stop is None else stop - start]


def resample(sound: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Mono float32 at another rate, by FFmpeg's windowed sinc; sample 0 stays sample 0."""
    if rate == wanted or not len(sound):
        return sound
    resampler = av.AudioResampler(format="flt", layout="mono", rate=wanted)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[None]), format="flt", layout="mono")
    frame.sample_rate = rate
    parts = [part.to_ndarray()[0] for given in (frame, None) for part in resampler.resample(given)]
    resampled = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    return resampled[: length_at(len(sound), rate, wanted)]


def length_at(samples: int, rate: int, wanted: int) -> int:
    """The number of samples at the rate ``wanted``, from that at ``rate``."""
    return samples * wanted // rate


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, AudioStream]]:
    """A file and its first audio stream; FFmpeg's errors become a ToolkitError that names the file."""
    if path.is_file() and not path.stat().st_size:
        raise ToolkitError(f"{path}: the file is empty")
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise ToolkitError(f"{path}: has no sound")
            stream = container.streams.audio[0]
            if getattr(stream, "codec_context", None) is None:
                raise ToolkitError(f"{path}: FFmpeg does not support the codec of its sound")
            yield container, stream
    except FileNotFoundError as error:
        raise ToolkitError(f"{path}: the file does not exist (any more)") from error
    except EOFError as error:
        raise ToolkitError(f"{path}: cut short, it ends in the middle of a frame") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise ToolkitError(f"{path}: cannot be read as sound ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    """FFmpeg's message without the error number and the path."""
    return str(getattr(error, "strerror", None) or error)


def _announced(container: InputContainer, stream: AudioStream) -> int | None:
    if stream.duration is not None and stream.time_base is not None:
        return round(stream.duration * stream.time_base * stream.rate)
    if container.duration is not None:
        return round(container.duration * stream.rate / av.time_base)
    return None


def _decoded(
    path: Path, container: InputContainer, stream: AudioStream, start: int, stop: tuple[int, int] | None
) -> np.ndarray:
    """Samples at the file's own rate: up to the first of ``stop`` they are required, up to the second optional."""
    announced = _announced(container, stream)
    needed, end = stop or (announced, announced)
    parts, at = [], start
    for frame in _packed(_frames(container, stream, start), stream):
        begins = _place(frame, stream)
        sound = _mono(frame)[max(0, at - begins) :]
        if begins > at:  # a gap: silence of the same length
            sound = np.concatenate((np.zeros(begins - at, np.float32), sound))
        parts.append(sound)
        at += len(sound)
        if end is not None and at >= end:
            break
    samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if needed is not None and len(samples) < needed - start - _slack(stream):
        raise ToolkitError(f"{path}: cut short, it ends at sample {at} of {needed}")
    return samples[: None if end is None else end - start]


def _frames(container: InputContainer, stream: AudioStream, start: int) -> Iterator[AudioFrame]:
    """The frames from a little before a sample on; from the beginning of the file if FFmpeg cannot seek there."""
    early = start - round(EARLY * stream.rate)
    if early > 0 and stream.time_base:
        with suppress(av.FFmpegError):
            container.seek(int(early / stream.rate / stream.time_base), stream=stream)
            frames = container.decode(stream)
            first = next(frames, None)
            if first is not None and _place(first, stream) <= start:
                return chain([first], frames)
        container.seek(0, stream=stream)
    return iter(container.decode(stream))


def _packed(frames: Iterable[AudioFrame], stream: AudioStream) -> Iterator[AudioFrame]:
    """Frames with interleaved channels: with eight or more planes PyAV reads beyond the last one, and crashes."""
    if not stream.format.is_planar:
        yield from frames
        return
    packer = av.AudioResampler(format=stream.format.packed, layout=stream.layout, rate=stream.rate)
    for frame in frames:
        yield from packer.resample(frame)


def _place(frame: AudioFrame, stream: AudioStream) -> int:
    """The sample of the file at which a frame begins."""
    if frame.pts is None or frame.time_base is None:
        return 0
    begin = (stream.start_time or 0) * (stream.time_base or 0)
    return round((frame.pts * frame.time_base - begin) * stream.rate)


def _slack(stream: AudioStream) -> int:
    """Samples that may be missing at the end: lossy formats count whole frames, some of which are cut off later."""
    return 0 if stream.codec_context.name.startswith(("pcm", "flac", "alac", "wavpack")) else stream.rate // 5


def _mono(frame: AudioFrame) -> np.ndarray:
    """The mean of the channels, float32 in [-1, 1]."""
    samples = frame.to_ndarray().reshape(-1, len(frame.layout.channels))
    sound: np.ndarray = samples.astype(np.float32)
    if samples.dtype == np.uint8:
        sound = (sound - 128) / 128
    elif samples.dtype.kind == "i":
        sound /= 2.0 ** (8 * samples.itemsize - 1)
    mean: np.ndarray = sound.mean(1)
    return mean
