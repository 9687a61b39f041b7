"""Kinds of sound files, encoded with PyAV, and what a plain decode of one gives."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
from made_sounds import encode


class Kind(NamedTuple):
    """A container and a codec."""

    file: str
    codec: str
    form: str
    rate: int = 44100
    layout: str = "mono"
    options: tuple[tuple[str, str], ...] = ()
    """Of the encoder."""
    header: tuple[tuple[str, str], ...] = ()
    """Options of the container."""


BARE = (("write_xing", "0"), ("id3v2_version", "0"))
VORBIS = (("strict", "experimental"),)

LOSSLESS = {
    "wav s16": Kind("a.wav", "pcm_s16le", "s16"),
    "w64": Kind("a.w64", "pcm_s16le", "s16"),
    "aiff": Kind("a.aiff", "pcm_s16be", "s16"),
    "caf": Kind("a.caf", "pcm_s16le", "s16"),
    "au": Kind("a.au", "pcm_s16be", "s16"),
    "flac": Kind("a.flac", "flac", "s16"),
    "flac in ogg": Kind("a.ogg", "flac", "s16"),
    "flac in mka": Kind("a.mka", "flac", "s16"),
    "alac in m4a": Kind("a.m4a", "alac", "s16p"),
    "alac in caf": Kind("a.caf", "alac", "s16p"),
    "pcm in mkv": Kind("a.mkv", "pcm_s16le", "s16"),
    "pcm in avi": Kind("a.avi", "pcm_s16le", "s16"),
    "pcm in mov": Kind("a.mov", "pcm_s16le", "s16"),
    "wavpack": Kind("a.wv", "wavpack", "s16p"),
    "tta": Kind("a.tta", "tta", "s16"),
}
"""16 bits at one rate, so that all of them are the same samples."""

LOSSY = {
    "wav u8": Kind("a.wav", "pcm_u8", "u8", 16000),
    "wav s24": Kind("a.wav", "pcm_s24le", "s32", 16000),
    "wav s32": Kind("a.wav", "pcm_s32le", "s32", 16000),
    "wav f32": Kind("a.wav", "pcm_f32le", "flt", 16000, "stereo"),
    "wav f64": Kind("a.wav", "pcm_f64le", "dbl", 16000),
    "wav mu-law": Kind("a.wav", "pcm_mulaw", "s16", 8000),
    "wav adpcm": Kind("a.wav", "adpcm_ima_wav", "s16p", 16000),
    "flac s24": Kind("a.flac", "flac", "s32", 16000),
    "pcm in mkv at 11 kHz": Kind("a.mkv", "pcm_s16le", "s16", 11025),
    "vorbis": Kind("a.ogg", "vorbis", "fltp", layout="stereo", options=VORBIS),
    "vorbis in webm": Kind("a.webm", "vorbis", "fltp", layout="stereo", options=VORBIS),
    "opus": Kind("a.opus", "libopus", "flt", 48000),
    "opus in webm": Kind("a.webm", "libopus", "flt", 48000),
    "opus in mp4": Kind("a.mp4", "libopus", "flt", 48000),
    "mp3 cbr": Kind("a.mp3", "libmp3lame", "s16p"),
    "mp3 cbr without xing": Kind("a.mp3", "libmp3lame", "s16p", header=BARE),
    "mp3 at 32 kbit/s": Kind("a.mp3", "libmp3lame", "s16p", options=(("b", "32000"),)),
    "mp3 vbr": Kind("a.mp3", "libmp3lame", "s16p", options=(("q", "2"),)),
    "mp3 vbr without xing": Kind("a.mp3", "libmp3lame", "s16p", options=(("q", "2"),), header=BARE),
    "mp3 at 16 kHz": Kind("a.mp3", "libmp3lame", "s16p", 16000),
    "mp3 in mkv": Kind("a.mkv", "libmp3lame", "s16p"),
    "mp3 in avi": Kind("a.avi", "libmp3lame", "s16p"),
    "mp2": Kind("a.mp2", "mp2", "s16"),
    "aac": Kind("a.aac", "aac", "fltp"),
    "aac at 24 kbit/s": Kind("a.aac", "aac", "fltp", options=(("b", "24000"),)),
    "aac in m4a": Kind("a.m4a", "aac", "fltp"),
    "aac in mkv": Kind("a.mkv", "aac", "fltp"),
    "aac in flv": Kind("a.flv", "aac", "fltp"),
    "aac in ts": Kind("a.ts", "aac", "fltp"),
    "wma": Kind("a.wma", "wmav2", "fltp", options=(("b", "64000"),)),
    "ac3": Kind("a.ac3", "ac3", "fltp"),
    "ac3 in mkv": Kind("a.mkv", "ac3", "fltp"),
    "eac3": Kind("a.eac3", "eac3", "fltp", 48000),
    "amr": Kind("a.amr", "libopencore_amrnb", "s16", 8000),
}
"""All others: some codecs lose something, some rates and forms are others."""

KINDS = LOSSLESS | LOSSY


def bursts(rate: int, channels: int = 1, seconds: float = 3.0) -> np.ndarray:
    """Short tones between silence, then noise, then a sweep, which no predictor takes for one another: float32."""
    t = np.arange(round(seconds * rate)) / rate
    tones = 0.5 * np.sin(2 * np.pi * 440 * t) * (t % 0.25 < 0.05)
    noise = 0.05 * np.random.default_rng(0).standard_normal(len(t)) * (t > seconds / 3)
    sweep = 0.2 * np.sin(2 * np.pi * (200 + 900 * t / seconds) * t) * (t > 2 * seconds / 3)
    return np.stack([(tones + noise + sweep) / (channel + 1) for channel in range(channels)]).astype(np.float32)


def make(folder: Path, name: str, seconds: float = 3.0) -> Path:
    """A file of a kind; the test is skipped where this FFmpeg has no such encoder."""
    kind = KINDS[name]
    try:
        av.Codec(kind.codec, "w")
    except ValueError:  # av.codec.codec.UnknownCodecError
        pytest.skip(f"this FFmpeg has no encoder {kind.codec}")
    path = folder / name.replace(" ", "-").replace("/", "-") / kind.file
    if not path.exists():
        path.parent.mkdir(parents=True)
        sound = bursts(kind.rate, 2 if kind.layout == "stereo" else 1, seconds)
        encode(path, sound, kind.rate, kind.codec, kind.form, kind.layout, dict(kind.options), dict(kind.header))
    return path


def plain(path: Path) -> np.ndarray:
    """All that FFmpeg decodes, joined end to end, whatever times it has: mono float32."""
    parts = []
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.audio[0]):
            samples, channels = frame.to_ndarray(), len(frame.layout.channels)
            samples = samples if frame.format.is_planar else samples.reshape(-1, channels).T
            parts.append(scaled(samples).mean(0))
    return np.concatenate(parts)


def scaled(samples: np.ndarray) -> np.ndarray:
    """Samples of any form as float32 in [-1, 1]."""
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype.kind == "i":
        return samples.astype(np.float32) / np.float32(2.0 ** (8 * samples.itemsize - 1))
    return samples.astype(np.float32)
