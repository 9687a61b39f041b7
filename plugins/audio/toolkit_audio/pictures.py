"""Plots of waveforms and spectrograms."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from toolkit import DataSpec
from toolkit_audio.spectra import magnitudes
from toolkit_audio.waveform import sample_rate_of

WINDOW = 0.025
"""Seconds of a spectrogram's window."""
RANGE = 80
"""Decibels from black to white."""
WIDTH = 320
"""Width of one sound, in pixels."""
WAVE, SPECTRUM = 40, 120
"""Heights of its waveform and its spectrogram."""
GAP = 6


def plot_sounds(path: Path, rows: Sequence[Sequence[np.ndarray]], spec: DataSpec) -> None:
    """Each row's sounds side by side: the waveform above its spectrogram, with axes in seconds and kilohertz.

    All share one scale of time, that of the longest, and of level, where 0 dB is a sine at full scale.
    """
    from matplotlib.figure import Figure

    rate, longest = sample_rate_of(spec), max(len(sound) for row in rows for sound in row)
    sheet = _sheet(rows, rate, longest)
    height, width = sheet.shape[:2]
    figure = Figure(figsize=((width + 90) / 100, (height + 50) / 100), dpi=100)
    axes = figure.add_axes((60 / (width + 90), 40 / (height + 50), width / (width + 90), height / (height + 50)))
    axes.imshow(sheet, interpolation="nearest", aspect="auto")
    tops = [row * (WAVE + SPECTRUM + GAP) + WAVE for row in range(len(rows))]
    axes.set_yticks([t + at for t in tops for at in (0, SPECTRUM // 2, SPECTRUM - 1)])
    axes.set_yticklabels([f"{rate / 2000 * share:g}" for _ in rows for share in (1, 0.5, 0)], fontsize=7)
    columns = max(len(row) for row in rows)
    places = [(column, share) for column in range(columns) for share in (0, 0.5)] + [(columns - 1, 1)]
    axes.set_xticks([column * (WIDTH + GAP) + share * (WIDTH - 1) for column, share in places])
    axes.set_xticklabels([f"{longest / rate * share:.3g}" for _, share in places], fontsize=7)
    axes.set_ylabel("kHz", fontsize=8)
    axes.set_xlabel("seconds", fontsize=8)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    figure.savefig(path)


def _sheet(rows: Sequence[Sequence[np.ndarray]], rate: int, longest: int) -> np.ndarray:
    """RGB ``(height, width, 3)`` of all cells."""
    columns = max(len(row) for row in rows)
    cell = WAVE + SPECTRUM + GAP
    sheet = np.full((len(rows) * cell - GAP, columns * (WIDTH + GAP) - GAP, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, sound in enumerate(row):
            top, left = i * cell, j * (WIDTH + GAP)
            width = max(1, round(WIDTH * len(sound) / longest))
            sheet[top : top + WAVE, left : left + width] = _wave(sound, width)
            sheet[top + WAVE : top + WAVE + SPECTRUM, left : left + width] = _spectrum(sound, rate, width)
    return sheet


def _wave(sound: np.ndarray, width: int) -> np.ndarray:
    """Each column of pixels from its lowest to its highest sample."""
    edges = np.linspace(0, len(sound), width + 1).astype(int)
    parts = [sound[a : max(b, a + 1)] for a, b in pairwise(edges)]
    low, high = (np.array([edge(part) if len(part) else 0 for part in parts]) for edge in (np.min, np.max))
    places = np.arange(WAVE)[:, None]
    inside = (places >= np.floor((1 - high) / 2 * (WAVE - 1))) & (places <= np.ceil((1 - low) / 2 * (WAVE - 1)))
    return np.where(inside[:, :, None], np.array((0, 90, 150), np.uint8), np.uint8(255))


def _spectrum(sound: np.ndarray, rate: int, width: int) -> np.ndarray:
    from matplotlib import colormaps

    window = torch.hann_window(2 * round(WINDOW * rate / 2))
    frames = magnitudes(torch.from_numpy(sound)[None], window, max(1, len(window) // 4))[0]
    level = 20 * frames.clamp(min=1e-8).log10()
    shown = (level.numpy() / RANGE + 1).clip(0, 1)
    down = np.linspace(len(shown) - 1, 0, SPECTRUM).round().astype(int)
    across = np.linspace(0, shown.shape[1] - 1, width).round().astype(int)
    picture: np.ndarray = (colormaps["magma"](shown[down][:, across])[..., :3] * 255).astype(np.uint8)
    return picture
