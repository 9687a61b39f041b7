"""Sound files: read whole, written at their rate, and plotted."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

import av
import numpy as np
import torch
from torch import Tensor

from toolkit import Dataset, DataSpec, FileCodec
from toolkit_audio.codecs import codecs_of
from toolkit_audio.pictures import plot_sounds
from toolkit_audio.reading import length_at, read_header, read_pieces, read_span
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
        (sound,) = _watched(path, (sound,))
        return from_waveform(sound, spec).unsqueeze(0)

    @classmethod
    def pieces(cls, path: Path, spec: DataSpec) -> Iterator[Tensor]:
        """As ``read``, about a second at a time."""
        rate, length = sample_rate_of(spec), 0
        for sound in _watched(path, map(torch.from_numpy, _joined(read_pieces(path, rate), rate))):
            length += len(sound)
            yield from_waveform(sound, spec).unsqueeze(0)
        if not length:
            raise ValueError("it has no samples")

    @classmethod
    def length(cls, path: Path, spec: DataSpec) -> int:
        header = read_header(path)
        return length_at(header.samples, header.rate, sample_rate_of(spec))

    @classmethod
    def write(cls, x: Tensor, spec: DataSpec, path: Path) -> None:
        """A wav file, 16-bit or, for data without levels, 32-bit float."""
        cls.write_pieces((x,), spec, path)

    @classmethod
    def write_pieces(cls, pieces: Iterable[Tensor], spec: DataSpec, path: Path) -> None:
        form = ("pcm_f32le", "flt") if spec.levels is None else ("pcm_s16le", "s16")
        write_wav(path, _sounds(path, pieces, spec), sample_rate_of(spec), *form)

    @classmethod
    def codecs(cls, spec: DataSpec) -> Mapping[str, FileCodec]:
        return codecs_of(spec)

    @classmethod
    def raw_type(cls, spec: DataSpec) -> str:
        """Signed 16-bit samples, whatever the form: what ``arecord -f S16_LE`` gives and ``aplay`` takes."""
        return "<i2"

    @classmethod
    def from_raw(cls, numbers: np.ndarray, spec: DataSpec) -> Tensor:
        return from_waveform(torch.from_numpy(numbers.astype(np.float32)) / HALF, spec)

    @classmethod
    def to_raw(cls, x: Tensor, spec: DataSpec) -> np.ndarray:
        sound = x.float() if spec.levels is None else to_waveform(x, spec)
        return (sound.clamp(-1, 1) * HALF).round().clamp(-HALF, HALF - 1).numpy().astype(cls.raw_type(spec))

    @classmethod
    def plot(cls, rows: Sequence[Tensor], spec: DataSpec, path: Path) -> None:
        plot_sounds(path, [[to_waveform(x.detach().cpu(), spec)[0].numpy() for x in row] for row in rows], spec)


def write_wav(path: Path, sounds: Iterable[np.ndarray], rate: int, codec: str, form: str) -> None:
    """Mono samples ``(1, n)``, int16 or float32, piece by piece, to a wav file."""
    with av.open(str(path), "w", format="wav") as container:
        stream = cast("AudioStream", container.add_stream(codec, rate=rate, layout="mono"))
        for samples in sounds:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format=form, layout="mono")
            frame.sample_rate = rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _joined(sounds: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Frames, of a thousand samples or so, as pieces of about a second."""
    kept: list[np.ndarray] = []
    for sound in sounds:
        kept.append(sound)
        if sum(map(len, kept)) >= rate:
            yield np.concatenate(kept)
            kept = []
    if kept:
        yield np.concatenate(kept)


def _sounds(path: Path, pieces: Iterable[Tensor], spec: DataSpec) -> Iterator[np.ndarray]:
    """Samples of a file, ``(1, n)``, int16 or float32."""
    waveforms = (
        x.cpu().float() if spec.levels is None else to_waveform(x.cpu(), spec) for x in map(Tensor.detach, pieces)
    )
    for sound in _watched(path, waveforms):
        sound = sound.clamp(-1, 1)
        if spec.levels is not None:
            sound = (sound * HALF).round().clamp(-HALF, HALF - 1).to(torch.int16)
        yield sound.numpy()


def _watched(path: Path, sounds: Iterable[Tensor]) -> Iterator[Tensor]:
    """The pieces of a sound, with a warning after the last of them where it is clipped."""
    count = length = 0
    for sound in sounds:
        count, length = count + clipped(sound.flatten()), length + sound.numel()
        yield sound
    if count:
        logger.warning("%s: clipped, %d of %d samples are at full scale", path, count, length)


def clipped(sound: Tensor) -> int:
    """How many samples are at or beyond full scale, in runs of three or more."""
    full = (sound.abs() >= FULL).float()
    runs = full.unfold(0, CLIPPED, 1).sum(1) == CLIPPED if len(full) >= CLIPPED else full[:0].bool()
    inside = torch.zeros(len(full), dtype=torch.bool)
    for shift in range(CLIPPED):
        inside[shift : shift + len(runs)] |= runs
    return int(inside.sum())
