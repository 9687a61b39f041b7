"""Sound files: read whole, written at their rate, and plotted."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

import av
import numpy as np
import torch
from torch import Tensor

from toolkit import Dataset, DataSpec
from toolkit_audio.pictures import plot_sounds
from toolkit_audio.reading import read_span
from toolkit_audio.waveform import HALF, from_waveform, sample_rate_of, to_waveform

if TYPE_CHECKING:
    from av.audio.stream import AudioStream

logger = logging.getLogger(__name__)

CLIPPED = 3
"""Consecutive samples at full scale from which on a peak counts as clipped."""
FULL = 1 - 1.5 / HALF
"""Full scale; the largest 16-bit sample counts, too."""


class AudioDataset(Dataset):
    """A dataset of sound ``(1, samples)``: mu-law levels, 16-bit levels or floats, one file each."""

    suffix: ClassVar[str] = ".wav"
    suffixes: ClassVar[tuple[str, ...]] = (".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus", ".aiff")

    @classmethod
    def read(cls, path: Path, spec: DataSpec) -> Tensor:
        """The whole file, of any length, at the spec's rate, mono."""
        sound = torch.from_numpy(read_span(path, 0, None, sample_rate_of(spec)))
        if not len(sound):
            raise ValueError("it has no samples")
        _warn_if_clipped(path, sound)
        return from_waveform(sound, spec).unsqueeze(0)

    @classmethod
    def write(cls, x: Tensor, spec: DataSpec, path: Path) -> None:
        """A wav file, 16-bit or, for data without levels, 32-bit float."""
        if spec.levels is None:
            sound, form = x.detach().cpu().float(), ("pcm_f32le", "flt")
        else:
            sound, form = to_waveform(x.detach().cpu(), spec), ("pcm_s16le", "s16")
        _warn_if_clipped(path, sound[0])
        sound = sound.clamp(-1, 1)
        if form[1] == "s16":
            sound = (sound * HALF).round().clamp(-HALF, HALF - 1).to(torch.int16)
        write_wav(path, sound.numpy(), sample_rate_of(spec), *form)

    @classmethod
    def plot(cls, rows: Sequence[Tensor], spec: DataSpec, path: Path) -> None:
        plot_sounds(path, [[to_waveform(x.detach().cpu(), spec)[0].numpy() for x in row] for row in rows], spec)


def write_wav(path: Path, samples: np.ndarray, rate: int, codec: str, form: str) -> None:
    """Mono samples ``(1, n)``, int16 or float32, to a wav file."""
    with av.open(str(path), "w", format="wav") as container:
        stream = cast("AudioStream", container.add_stream(codec, rate=rate, layout="mono"))
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format=form, layout="mono")
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


def clipped(sound: Tensor) -> int:
    """How many samples are at or beyond full scale, in runs of three or more."""
    full = (sound.abs() >= FULL).float()
    runs = full.unfold(0, CLIPPED, 1).sum(1) == CLIPPED if len(full) >= CLIPPED else full[:0].bool()
    inside = torch.zeros(len(full), dtype=torch.bool)
    for shift in range(CLIPPED):
        inside[shift : shift + len(runs)] |= runs
    return int(inside.sum())


def _warn_if_clipped(path: Path, sound: Tensor) -> None:
    count = clipped(sound)
    if count:
        logger.warning("%s: clipped, %d of %d samples are at full scale", path, count, len(sound))
