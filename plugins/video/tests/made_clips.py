"""Clips made for tests, whose frames say which they are."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

BITS = 8
"""Bars of a frame, each a bit of its number, the lowest to the left."""


def numbered(n: int, height: int = 48, width: int = 64, first: int = 0) -> np.ndarray:
    """Frames ``(n, height, width, 3)``, uint8, that show their numbers in bars, under a band that is grey."""
    bits = np.arange(first, first + n)[:, None] >> np.arange(BITS) & 1
    bars = np.repeat(40 + 170 * bits, width // BITS, axis=1)
    frames = np.repeat(np.repeat(bars[:, None, :, None], height, 1), 3, 3).astype(np.uint8)
    frames[:, : height // 8] = 128
    return frames


def colorful(n: int = 6, height: int = 96, width: int = 96) -> np.ndarray:
    """Frames of smooth colors, and a corner of pure ones."""
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    made = np.stack([np.stack([across, down, 1 - (across + i / n) % 1], -1) for i in range(n)])
    frames = (255 * made).round().astype(np.uint8)
    for i, pure in enumerate(([255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [255, 255, 0])):
        frames[:, 16 * i : 16 * i + 16, :16] = pure
    return frames


def numbers(x: Any) -> list[int]:
    """What the frames ``(channels, n, height, width)`` or ``(n, height, width, channels)`` say."""
    frames = np.asarray(x)
    frames = frames.transpose(1, 2, 3, 0) if frames.shape[0] in (1, 3) and frames.shape[3] not in (1, 3) else frames
    height, width = frames.shape[1:3]
    middles = (np.arange(BITS) * 2 + 1) * width // (2 * BITS)
    bits = frames[:, 3 * height // 4, middles].astype(int).mean(-1) > 125
    return (bits << np.arange(BITS)).sum(1).tolist()


def save(
    path: Path,
    frames: np.ndarray,
    rate: float | Fraction = 10,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    ticks: Sequence[int] | None = None,
    base: Fraction | None = None,
    rotation: int | None = None,
    options: dict[str, str] | None = None,
    colors: tuple[int, int] | None = None,
    aspect: Fraction = Fraction(1),
) -> Path:
    """A video file. ``ticks`` of ``base`` seconds are when frames are shown; ``colors`` matrix and range, told;
    ``aspect`` the width of a pixel over its height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1000))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.options = ({"crf": "10", "preset": "ultrafast", "g": "8"} if codec == "libx264" else {}) | (
            options or {}
        )
        if base is not None:
            stream.codec_context.time_base = base
        if aspect != 1:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if colors is not None:
            stream.codec_context.colorspace, stream.codec_context.color_range = colors
        for i, pixels in enumerate(frames):
            frame: Any = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            matrix, span = colors or (None, None)
            frame = frame.reformat(format=pix_fmt, dst_colorspace=matrix, dst_color_range=span)
            if ticks is not None:
                frame.pts, frame.time_base = ticks[i], base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def sound_only(path: Path) -> Path:
    """A file of the kind that films have, without one."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def psnr(a: Any, b: Any) -> float:
    """Decibels, of levels 0..255."""
    difference = np.asarray(a, float) - np.asarray(b, float)
    return float(20 * np.log10(255) - 10 * np.log10((difference**2).mean() + 1e-12))
