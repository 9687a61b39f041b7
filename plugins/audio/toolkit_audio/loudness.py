"""Loudness by ITU-R BS.1770, measured by torchaudio."""

from __future__ import annotations

from importlib import import_module
from math import isfinite
from types import ModuleType

import numpy as np
import torch

from toolkit import ToolkitError

SHORTEST = 0.4
"""Seconds of the measure's blocks; shorter sound is repeated to fill one."""


def require_torchaudio(what: str) -> ModuleType:
    """``torchaudio.functional``. ToolkitError with the reason if it cannot be imported, and what to install.

    Its libraries are built against one version of torch. With another it fails only when it is imported, in one of
    several ways.
    """
    try:
        return import_module("torchaudio.functional")
    except (ImportError, OSError, RuntimeError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ToolkitError(
            f"{what} needs torchaudio, which does not import beside torch {torch.__version__}:"
            f" {type(error).__name__}: {why}\n"
            'a build of torch for CPUs only will not do: pip install --force-reinstall "torch>=2.12,<2.15" torchaudio'
        ) from error


def measure_loudness(sound: np.ndarray, rate: int) -> float | None:
    """LUFS of mono samples; None for silence."""
    functional = require_torchaudio("dataset.loudness")
    repeats = -(-round(SHORTEST * rate) // max(1, len(sound)))
    waveform = torch.from_numpy(np.tile(sound, repeats)).unsqueeze(0)
    loudness = float(functional.loudness(waveform, rate))
    return loudness if isfinite(loudness) else None


def gain(loudness: float | None, wanted: float | None, peak: float) -> float:
    """The factor that brings sound to a loudness, limited so that peaks stay in [-1, 1]."""
    if loudness is None or wanted is None or not peak:
        return 1.0
    return float(min(10 ** ((wanted - loudness) / 20), 1 / peak))
