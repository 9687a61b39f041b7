"""Sound made for tests, and files of it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from toolkit_audio.files import write_wav
from toolkit_audio.reading import read_header


def noise(seconds: float, rate: int = 16000, seed: int = 0) -> np.ndarray:
    """Mono float32 ``(samples,)``, smooth enough to be sound."""
    white = np.random.default_rng(seed).standard_normal(round(seconds * rate) + 8)
    return (0.1 * np.convolve(white, np.ones(8) / 8, "valid")[: round(seconds * rate)]).astype(np.float32)


def save(path: Path, sound: np.ndarray, rate: int = 16000) -> Path:
    """A 16-bit wav file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_wav(path, [np.round(sound[None] * 32767).astype(np.int16)], rate, "pcm_s16le", "s16")
    return path


def encode(
    path: Path,
    sound: np.ndarray,
    rate: int,
    codec: str,
    form: str,
    layout: str = "mono",
    options: dict[str, str] | None = None,
    header: dict[str, str] | None = None,
) -> Path:
    """Channels ``(channels, n)`` of float32 to a file of another kind, with options of the encoder and container."""
    with av.open(str(path), "w", options=header or {}) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout, format=form, options=options or {})
        stream.codec_context.open()  # only then it knows the size of its frames
        frame = av.AudioFrame.from_ndarray(sound.T.reshape(1, -1).copy(), format="flt", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler(format=form, layout=layout, rate=rate, frame_size=stream.frame_size or 4096)
        for given in (frame, None):
            for part in resampler.resample(given):
                container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def align(root: Path) -> Path:
    """Next to a corpus of wav files, alignments of most of them: a for 0.1 s, b to 0.25 s, nothing, and a."""
    folder = root.parent / "phones"
    for path in sorted(root.glob("**/*.wav"))[1:]:
        file = (folder / path.relative_to(root)).with_suffix(".lab")
        file.parent.mkdir(parents=True, exist_ok=True)
        header = read_header(path)
        end = header.samples / header.rate
        file.write_text(f"0 0.1 a\n0.1 0.25 b\n{end - 0.01:.4f} {end:.4f} a\n")
    return folder


def save_voices(folder: Path) -> Path:
    """Three speakers with names that no grammar likes, six utterances each."""
    root = folder / "목소리 [a], b=c (d)'s"
    for number, speaker in enumerate(("화자 [1], x=y", "anna", "p226")):
        for i in range(6):
            save(root / speaker / f"{i}.wav", noise(0.3 + 0.1 * i, seed=10 * number + i))
    return root
