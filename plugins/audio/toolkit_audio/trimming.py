"""Trimming of silence at both ends."""

from __future__ import annotations

import numpy as np

WINDOW = 0.025
"""Seconds over which the level is measured."""


def sounding(sound: np.ndarray, rate: int, decibels: float) -> tuple[int, int]:
    """First sample and end (exclusive) of what is less than ``decibels`` below the loudest window.

    Silence is not trimmed.
    """
    window = max(1, round(WINDOW * rate))
    padded = np.pad(sound.astype(np.float64), (0, -len(sound) % window))
    power = (padded.reshape(-1, window) ** 2).mean(1)
    loud = np.flatnonzero(power >= power.max() * 10 ** (-decibels / 10))
    if not power.max():
        return 0, len(sound)
    return int(loud[0]) * window, min(len(sound), (int(loud[-1]) + 1) * window)
