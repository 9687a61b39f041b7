"""Clips through H.264, as x264 writes it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from io import BytesIO

import av
import numpy as np
import torch
from torch import Tensor

from toolkit import Coded, DataSpec, FileCodec
from toolkit_video.clips import ENCODER, encoded, frame_rate, frames_of, to_clip
from toolkit_video.pictures import FORMATS, Converter

FACTORS = (43, 38, 33, 28, 23, 18)
"""Constant rate factors, the smaller the better; 23 is x264's own."""
NARROW = 48
"""Pixels: of less wide clips x264's assembly reads more than there is when it looks ahead, and may write other bytes at
each call."""
SLICES = range(1, 6)
"""Units of H.264 that hold pictures; others hold sizes, options, and x264's own settings in words."""


def codecs_of(spec: DataSpec) -> Mapping[str, FileCodec]:
    """H.264 in MP4, 4:2:0; ValueError for channels that it has not, and for clips without a rate."""
    if spec.channels not in FORMATS:
        raise ValueError(f"video has 1 or 3 channels, not {spec.channels}")
    return {"h264": FileCodec(partial(_through, frame_rate(spec)), FACTORS, "crf {:g}", _missing())}


def _missing() -> str:
    try:
        av.Codec(ENCODER, "w")
    except av.codec.codec.UnknownCodecError:
        return f"the installed FFmpeg has no encoder {ENCODER}"
    return ""


def _through(rate: float, x: Tensor, factor: float | None) -> Coded:
    file, numbers = BytesIO(), 0
    height, width = x.shape[2:]
    frames = np.pad(frames_of(x), ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    own = "chromaloc=1" if width >= NARROW else "chromaloc=1:no-asm=1"
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        for packet in encoded(container, frames, rate, {"crf": f"{factor:g}", "x264-params": own}):
            numbers += _numbers(bytes(packet))
            container.mux(packet)
    data = file.getvalue()
    read = torch.cat(_read(data, len(x)), 1)[:, :, :height, :width]
    return Coded(data, len(data) - numbers, read.contiguous())


def _read(data: bytes, channels: int) -> list[Tensor]:
    converter = Converter(channels, None)
    with av.open(BytesIO(data), "r", format="mp4") as container:
        return [to_clip(converter(frame)[None]) for frame in container.decode(video=0)]


def _numbers(packet: bytes) -> int:
    """Bytes of the units that hold pictures, each after a start code."""
    units = [unit.rstrip(b"\0") for unit in packet.split(b"\0\0\1")]
    return sum(len(unit) for unit in units if unit and unit[0] & 31 in SLICES)
