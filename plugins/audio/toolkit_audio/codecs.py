"""Sound through FLAC and Opus, as FFmpeg writes them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, cast

import av
import numpy as np
import torch
from torch import Tensor

from toolkit import Coded, DataSpec, FileCodec
from toolkit_audio.reading import read_span, resample
from toolkit_audio.waveform import HALF, from_waveform, sample_rate_of, to_waveform

if TYPE_CHECKING:
    from av.audio.stream import AudioStream

BIT_RATES = (6, 12, 24, 48, 96)
"""Kilobits per second."""
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
"""Samples per second that Opus takes."""


def codecs_of(spec: DataSpec) -> Mapping[str, FileCodec]:
    """FLAC of 16 bits and Opus, at the spec's rate, for Opus at the next that it has; ValueError for no sound."""
    rate = sample_rate_of(spec)
    opus_rate = next((known for known in OPUS_RATES if known >= rate), OPUS_RATES[-1])
    return {
        "flac": FileCodec(partial(_through, spec, "flac", "flac", rate), missing=_missing("flac")),
        "opus": FileCodec(
            partial(_through, spec, "libopus", "ogg", opus_rate), BIT_RATES, "{:g} kbit/s", _missing("libopus")
        ),
    }


def _missing(encoder: str) -> str:
    try:
        av.Codec(encoder, "w")
    except av.codec.codec.UnknownCodecError:
        return f"the installed FFmpeg has no encoder {encoder}"
    return ""


def _through(spec: DataSpec, encoder: str, form: str, rate: int, x: Tensor, kilobits: float | None) -> Coded:
    own_rate, length = sample_rate_of(spec), x.shape[1]
    sound = resample(to_waveform(x.detach().cpu(), spec)[0].float().numpy(), own_rate, rate)
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"sound.{form}"
        numbers = _write(path, sound, rate, encoder, form, kilobits)
        data, read = path.read_bytes(), torch.from_numpy(read_span(path, 0, None, own_rate))[:length]
    read = torch.nn.functional.pad(read, (0, length - len(read)))
    return Coded(data, len(data) - numbers, from_waveform(read, spec).unsqueeze(0))


def _write(path: Path, sound: np.ndarray, rate: int, encoder: str, form: str, kilobits: float | None) -> int:
    """Returns the bytes of the packets."""
    samples = (sound.clip(-1, 1) * HALF).round().clip(-HALF, HALF - 1).astype(np.int16)[None]
    numbers = 0
    with av.open(str(path), "w", format=form, options={"fflags": "+bitexact"}) as container:
        stream = cast("AudioStream", container.add_stream(encoder, rate=rate, layout="mono"))
        stream.format = "s16"
        if kilobits is not None:
            stream.bit_rate = int(1000 * kilobits)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            numbers += packet.size
            container.mux(packet)
    return numbers
