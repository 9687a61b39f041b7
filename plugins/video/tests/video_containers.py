"""Kinds of video files, encoded with PyAV, and what a plain decode of one shows."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from struct import pack
from typing import Any, NamedTuple

import av
import numpy as np
import pytest
from made_clips import numbered, save

N = 40
"""Frames that are encoded."""


class Kind(NamedTuple):
    """A container and a codec, and what is done to the file."""

    file: str
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    options: tuple[tuple[str, str], ...] = ()
    """Of the encoder."""
    rate: int = 25
    ticks: tuple[int, ...] = ()
    """Milliseconds at which frames are shown."""
    cut: float = 0.0
    """Seconds from which on packets are copied into a file that leaves out what is before: 0: not cut."""
    stop: float = 0.0
    """Up to which seconds they are; 0: to the end."""
    aspect: Fraction = Fraction(1)
    """The width of a pixel over its height."""


def options(**words: str) -> tuple[tuple[str, str], ...]:
    return tuple((name.replace("_", "-"), value) for name, value in words.items())


PLAIN = options(preset="ultrafast", g="12")
BS = options(preset="medium", bf="3", g="12")
OPEN = (("preset", "medium"), ("x264-params", "open-gop=1:keyint=12:min-keyint=6:bframes=3"))
REFRESH = (("preset", "medium"), ("x264-params", "intra-refresh=1:keyint=12:bframes=0"))
X265 = (("preset", "ultrafast"), ("x265-params", "log-level=none:keyint=12:min-keyint=6:bframes=3"))
CLOSED = (("preset", "ultrafast"), ("x265-params", "log-level=none:keyint=12:open-gop=0"))
VP = options(cpu_used="8", deadline="realtime", g="12")
ALT = options(cpu_used="4", deadline="good", g="12", auto_alt_ref="1", lag_in_frames="10")
MPEG = options(bf="2", g="12")
IRREGULAR = tuple(int(x) for x in np.cumsum([0, *([40, 80, 20, 33, 500, 7] * 7)])[:N])
WIDE = Fraction(4, 3)

KINDS = {
    "H.264 in mp4": Kind("a.mp4", options=PLAIN),
    "H.264 in mov": Kind("a.mov", options=BS),
    "H.264 in mkv": Kind("a.mkv", options=BS),
    "H.264 in ts": Kind("a.ts", options=BS),
    "H.264 in avi": Kind("a.avi", options=BS),
    "H.264 in flv": Kind("a.flv", options=BS),
    "H.264 without a container": Kind("a.h264", options=BS),
    "H.264 with B-frames": Kind("a.mp4", options=BS),
    "H.264 with open groups in mp4": Kind("a.mp4", options=OPEN),
    "H.264 with open groups in mkv": Kind("a.mkv", options=OPEN),
    "H.264 with open groups in ts": Kind("a.ts", options=OPEN),
    "H.264 refreshed in parts in mp4": Kind("a.mp4", options=REFRESH),
    "H.264 refreshed in parts in ts": Kind("a.ts", options=REFRESH),
    "H.264 of 10 bits": Kind("a.mp4", pix_fmt="yuv420p10le", options=BS),
    "H.264, interlaced": Kind("a.mp4", options=(*PLAIN, ("x264-params", "interlaced=1"))),
    "H.264 of irregular frames in mp4": Kind("a.mp4", options=BS, ticks=IRREGULAR),
    "H.264 of irregular frames in mkv": Kind("a.mkv", options=BS, ticks=IRREGULAR),
    "H.264 cut in mp4": Kind("a.mp4", options=PLAIN, cut=0.76),
    "H.264 with B-frames cut in mp4": Kind("a.mp4", options=BS, cut=0.76),
    "H.264 with B-frames cut in mov": Kind("a.mov", options=BS, cut=0.6, stop=1.2),
    "H.264 with open groups cut in mp4": Kind("a.mp4", options=OPEN, cut=0.76),
    "H.264 cut in mkv": Kind("a.mkv", options=BS, cut=0.76),
    "H.264 cut in ts": Kind("a.ts", options=BS, cut=0.76),
    "H.264 with wide pixels in mp4": Kind("a.mp4", options=BS, aspect=WIDE),
    "H.264 with wide pixels in mkv": Kind("a.mkv", options=BS, aspect=WIDE),
    "H.264 with wide pixels in ts": Kind("a.ts", options=BS, aspect=WIDE),
    "HEVC in mp4": Kind("a.mp4", "libx265", options=CLOSED),
    "HEVC with open groups in mp4": Kind("a.mp4", "libx265", options=X265),
    "HEVC with open groups in mkv": Kind("a.mkv", "libx265", options=X265),
    "HEVC with open groups in ts": Kind("a.ts", "libx265", options=X265),
    "HEVC with open groups cut in mp4": Kind("a.mp4", "libx265", options=X265, cut=0.76),
    "HEVC with open groups cut in mkv": Kind("a.mkv", "libx265", options=X265, cut=0.76),
    "AV1 in mp4": Kind("a.mp4", "libsvtav1", options=options(preset="12", g="12")),
    "AV1 in mkv": Kind("a.mkv", "libsvtav1", options=options(preset="12", g="12")),
    "AV1 in webm": Kind("a.webm", "libsvtav1", options=options(preset="12", g="12")),
    "AV1 cut in mp4": Kind("a.mp4", "libsvtav1", options=options(preset="12", g="12"), cut=0.76),
    "VP9 in webm": Kind("a.webm", "libvpx-vp9", options=VP),
    "VP9 in mp4": Kind("a.mp4", "libvpx-vp9", options=VP),
    "VP9 with hidden frames": Kind("a.webm", "libvpx-vp9", options=ALT),
    "VP9 cut in mp4": Kind("a.mp4", "libvpx-vp9", options=ALT, cut=0.76),
    "VP8 in webm": Kind("a.webm", "libvpx", options=VP),
    "VP8 with hidden frames": Kind("a.webm", "libvpx", options=ALT),
    "MPEG-1 in mpg": Kind("a.mpg", "mpeg1video", options=MPEG),
    "MPEG-2 in ts": Kind("a.ts", "mpeg2video", options=MPEG),
    "MPEG-2 in mpg": Kind("a.mpg", "mpeg2video", options=MPEG),
    "MPEG-2 in mkv": Kind("a.mkv", "mpeg2video", options=MPEG),
    "MPEG-2 cut in ts": Kind("a.ts", "mpeg2video", options=MPEG, cut=0.76),
    "MPEG-4 in avi": Kind("a.avi", "mpeg4", options=MPEG),
    "MPEG-4 in mp4": Kind("a.mp4", "mpeg4", options=MPEG),
    "MPEG-4 cut in mp4": Kind("a.mp4", "mpeg4", options=MPEG, cut=0.76),
    "WMV in wmv": Kind("a.wmv", "wmv2", options=options(g="12")),
    "Theora in ogv": Kind("a.ogv", "libtheora", options=options(g="12")),
    "MJPEG in avi": Kind("a.avi", "mjpeg", "yuvj420p"),
    "MJPEG in mov": Kind("a.mov", "mjpeg", "yuvj420p"),
    "ProRes in mov": Kind("a.mov", "prores_ks", "yuv422p10le"),
    "ProRes with transparency": Kind("a.mov", "prores_ks", "yuva444p10le"),
    "FFV1 in mkv": Kind("a.mkv", "ffv1", options=options(g="12")),
    "FFV1 in avi": Kind("a.avi", "ffv1", "bgr0", options=options(g="12")),
    "PNG in mov": Kind("a.mov", "png", "rgb24"),
    "GIF": Kind("a.gif", "gif", "rgb8"),
    "APNG": Kind("a.apng", "apng", "rgb24"),
}


def make(folder: Path, name: str) -> Path:
    """A file of a kind; the test is skipped where this FFmpeg has no such encoder."""
    kind = KINDS[name]
    try:
        av.Codec(kind.codec, "w")
    except ValueError:  # av.codec.codec.UnknownCodecError
        pytest.skip(f"this FFmpeg has no encoder {kind.codec}")
    path = folder / name.replace(" ", "-").replace("/", "-") / kind.file
    if path.exists():
        return path
    whole = path.with_name("whole.mp4") if kind.cut else path
    times: dict[str, Any] = {"ticks": kind.ticks, "base": Fraction(1, 1000)} if kind.ticks else {}
    save(
        whole,
        numbered(N, 96, 128),
        kind.rate,
        codec=kind.codec,
        pix_fmt=kind.pix_fmt,
        options=dict(kind.options),
        aspect=kind.aspect,
        **times,
    )
    if kind.cut:
        cut(whole, path, kind.cut, kind.stop)
    return path


def cut(whole: Path, path: Path, start: float, stop: float = 0.0) -> None:
    """Copies packets from the keyframe before ``start`` seconds on, with times that make those before it negative, as
    ``ffmpeg -ss start -to stop -i whole -c copy path`` does: MP4 then has an edit list."""
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        given = source.streams.video[0]
        stream = target.add_stream_from_template(given, opaque=True)
        assert given.time_base is not None
        first = round(start / given.time_base) + (given.start_time or 0)
        source.seek(first, stream=given)
        for packet in source.demux(given):
            if packet.dts is None or packet.pts is None:
                continue
            if stop and packet.dts * given.time_base > stop:
                break
            packet.pts, packet.dts, packet.stream = packet.pts - first, packet.dts - first, stream
            target.mux(packet)


def edit(path: Path, parts: list[tuple[float, float | None]]) -> None:
    """Gives an MP4 file another edit list: of each part its length, and where it begins in the film; None: nowhere,
    there is nothing to see. All in seconds."""
    content = path.read_bytes()
    with av.open(str(path)) as container:
        base = container.streams.video[0].time_base
    assert base is not None
    at = content.index(b"edts") - 4
    old = int.from_bytes(content[at : at + 4])
    first = int.from_bytes(content[at + 28 : at + 32])  # of the one part that there was
    rows = [(round(1000 * length), -1 if begins is None else first + round(begins / base)) for length, begins in parts]
    table = pack(">II", 0, len(rows)) + b"".join(pack(">IiI", *row, 1 << 16) for row in rows)
    box = pack(">I4sI4s", 16 + len(table), b"edts", 8 + len(table), b"elst") + table
    made = bytearray(content[:at] + box + content[at + old :])
    for kind in (b"moov", b"trak"):
        holder = content.index(kind) - 4
        made[holder : holder + 4] = (int.from_bytes(made[holder : holder + 4]) + len(box) - old).to_bytes(4)
    path.write_bytes(made)


def plain(path: Path) -> list[av.VideoFrame]:
    """All frames that FFmpeg shows, whatever times they have."""
    with av.open(str(path)) as container:
        return list(container.decode(container.streams.video[0]))
