"""Video files: read, written, and plotted frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import islice
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

import av
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from PIL import Image
from torch import Tensor

from toolkit import Dataset, DataSpec, FileCodec
from toolkit_video.pictures import FORMATS, KEEPING, crop
from toolkit_video.reading import Timeline, read_timeline, stream_frames

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

ENCODING = {"crf": "8", "preset": "medium", "g": "16", "x264-params": "chromaloc=1"}
"""Hardly lossier than the conversion of RGB to the file's colors and back. ``chromaloc`` states where the conversion
puts chroma, in the middle of four pixels. No frame is far from a keyframe."""
ENCODER = "libx264"
SMALLEST = 128
"""Pixels of a frame's shorter side from which on all players accept it."""
BT709 = 1
"""The standard's number for its primaries, transfer and matrix."""
MARGIN, BREAK = 2, 8
"""Pixels between the frames of a contact sheet, and above a new column."""
LEGIBLE = 64
"""Pixels that the longer side of a frame is enlarged to on a contact sheet, at most."""
VARYING = (True, False, False)
"""Files may have other numbers of frames than examples."""
PIECE = 32
"""Frames read at a time."""
SHOWN = 24
"""Frames of a clip on a contact sheet, at most."""


class ClipDataset(Dataset):
    """A dataset of clips ``(channels, frames, height, width)``, uint8 levels 0..255, one file each.

    The spec has 1 or 3 channels and, for its first axis, the rate in frames per second.
    """

    suffix: ClassVar[str] = ".mp4"
    suffixes: ClassVar[tuple[str, ...]] = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif")

    @classmethod
    def read(cls, path: Path, spec: DataSpec) -> Tensor:
        """The frames of anything that FFmpeg decodes, at the spec's rate: all, or the first where lengths do not vary.

        ToolkitError if the file cannot be read; ValueError if it has fewer or smaller frames, or the spec has other
        channels.
        """
        return torch.cat(list(cls.pieces(path, spec)), 1)

    @classmethod
    def pieces(cls, path: Path, spec: DataSpec) -> Iterator[Tensor]:
        """As ``read``, some frames at a time."""
        if spec.channels not in FORMATS:
            raise ValueError(f"video has 1 or 3 channels, not {spec.channels}")
        timeline, size = read_timeline(path), (spec.axes[1], spec.axes[2])
        frames = stream_frames(path, timeline, _shown(timeline, spec), spec.channels, size)
        while piece := list(islice(frames, PIECE)):
            yield to_clip(crop(np.stack(piece), size))

    @classmethod
    def length(cls, path: Path, spec: DataSpec) -> int:
        return len(_shown(read_timeline(path), spec))

    @classmethod
    def write(cls, x: Tensor, spec: DataSpec, path: Path) -> None:
        """An MP4 file (H.264, 4:2:0, BT.709) that common players accept; frames too small for them are enlarged."""
        cls.write_pieces((x,), spec, path)

    @classmethod
    def write_pieces(cls, pieces: Iterable[Tensor], spec: DataSpec, path: Path) -> None:
        write_mp4(path, (frame for x in pieces for frame in frames_of(x)), frame_rate(spec))

    @classmethod
    def codecs(cls, spec: DataSpec) -> Mapping[str, FileCodec]:
        from toolkit_video.codecs import codecs_of

        return codecs_of(spec)

    @classmethod
    def plot(cls, rows: Sequence[Tensor], spec: DataSpec, path: Path) -> None:
        """A line for each clip, its frames side by side; clips in the same column of the rows are grouped."""
        Image.fromarray(contact_sheet(rows)).save(path, format="PNG")


def frame_rate(spec: DataSpec) -> float:
    """Frames per second."""
    rate = spec.rates[0] if spec.rates else None
    if rate is None:
        raise ValueError("the data has no frames per second")
    return rate


def too_few(frames: int, rate: float) -> str:
    return f"{frames} frames at {rate:g} per second, fewer than"


def to_clip(frames: np.ndarray) -> Tensor:
    """``(frames, height, width, channels)`` to ``(channels, frames, height, width)``."""
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(3, 0, 1, 2)))


def frames_of(x: Tensor) -> np.ndarray:
    """``(channels, frames, height, width)`` to ``(frames, height, width, 3)``, uint8; gray is repeated three times."""
    frames: np.ndarray = x.detach().to("cpu", torch.uint8).permute(1, 2, 3, 0).numpy()
    return frames.repeat(3, 3) if frames.shape[3] == 1 else frames


def write_mp4(path: Path, frames: Iterable[np.ndarray], rate: float) -> None:
    """Frames ``(height, width, 3)`` of one shape, uint8; small ones are enlarged by a whole factor."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        for packet in encoded(container, map(_enlarged, frames), rate, ENCODING):
            container.mux(packet)


def encoded(
    container: OutputContainer, frames: Iterable[np.ndarray], rate: float, options: Mapping[str, str]
) -> Iterator[Packet]:
    """Frames ``(height, width, 3)`` with even sides, uint8, as packets of H.264 for a new stream of the container."""
    stream = cast("VideoStream", container.add_stream(ENCODER, rate=Fraction(rate).limit_denominator(10_000)))
    stream.pix_fmt, stream.options = "yuv420p", dict(options)
    context, reformatter = stream.codec_context, VideoReformatter()
    context.color_range, context.colorspace = ColorRange.MPEG, BT709
    context.color_primaries = context.color_trc = BT709
    for i, pixels in enumerate(frames):
        if not i:
            stream.width, stream.height = pixels.shape[1], pixels.shape[0]
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = reformatter.reformat(
            frame,
            format="yuv420p",
            interpolation=KEEPING,
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
        )
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    factor = enlargement(*pixels.shape[:2])
    return pixels.repeat(factor, 0).repeat(factor, 1)


def _shown(timeline: Timeline, spec: DataSpec) -> np.ndarray:
    """The numbers of the frames that are read; ValueError where there are fewer than clips have whose length is one."""
    rate, frames = frame_rate(spec), spec.axes[0]
    shown = timeline.frames(rate)
    if any(spec.varying[:1]):
        return shown
    if len(shown) < frames:
        raise ValueError(f"{too_few(len(shown), rate)} required: {frames}")
    return shown[:frames]


def enlargement(height: int, width: int) -> int:
    """The least whole factor that makes both sides even, as 4:2:0 requires, and large enough to play."""
    factor = ceil(SMALLEST / min(height, width))
    return factor + 1 if factor % 2 and (height % 2 or width % 2) else factor


def contact_sheet(rows: Sequence[Tensor]) -> np.ndarray:
    """Rows of clips as one picture ``(height, width, 3)``, small frames enlarged by a whole factor.

    Clips in the same column, such as an original and its reconstruction, are lines below one another.
    """
    columns = [[row[i] for row in rows if i < len(row)] for i in range(max(len(row) for row in rows))]
    strips = [[_strip(frames_of(clip)) for clip in column] for column in columns]
    width = max(strip.shape[1] for column in strips for strip in column)
    lines: list[np.ndarray] = []
    for column in strips:
        lines += [_blank(BREAK - MARGIN, width)] if lines else []
        for strip in column:
            lines.append(np.pad(strip, ((0, MARGIN), (0, width - strip.shape[1]), (0, 0)), constant_values=255))
    return np.concatenate([_blank(MARGIN, width), *lines])


def _strip(frames: np.ndarray) -> np.ndarray:
    """A clip's frames side by side, of a long clip some at even distances."""
    if len(frames) > SHOWN:
        frames = frames[np.linspace(0, len(frames) - 1, SHOWN).round().astype(int)]
    factor = max(1, LEGIBLE // max(frames.shape[1:3]))
    frames = frames.repeat(factor, 1).repeat(factor, 2)
    between = _blank(frames.shape[1], MARGIN)
    return np.concatenate([between, *(part for frame in frames for part in (frame, between))], 1)


def _blank(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 255, np.uint8)
