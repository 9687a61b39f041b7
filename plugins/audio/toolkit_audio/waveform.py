"""The data's own form, and the waveform that it stands for.

Sound has three forms, which differ in the levels of the spec: mu-law has 256, 16 bits have 65536, floats have no
levels. A waveform is float in [-1, 1]. For mu-law levels ``DataSpec.scale`` gives the companded scale, on which
neighboring levels sound equally far apart; expanding it gives the waveform.
"""

from __future__ import annotations

from math import log, log1p

import torch
from torch import Tensor

from toolkit import DataSpec

MU = 255
"""Of ITU-T G.711, for 256 levels."""

FORMS = {"mulaw": MU + 1, "pcm16": 1 << 16, "float": None}
"""The levels of each form of sound."""

HALF = 1 << 15
"""The level of silence in 16 bits, as in files, so that they are preserved bit for bit."""


def compress(waveform: Tensor) -> Tensor:
    """``sign(w) ln(1 + mu |w|) / ln(1 + mu)``: a waveform in [-1, 1] to the companded scale."""
    return waveform.sign() * torch.log1p(MU * waveform.abs()) / log1p(MU)


def expand(companded: Tensor) -> Tensor:
    """The inverse of ``compress``, differentiable."""
    return companded.sign() * torch.expm1(companded.abs() * log(1 + MU)) / MU


def to_waveform(x: Tensor, spec: DataSpec) -> Tensor:
    """Data in its own form to the waveform, float32."""
    if spec.levels == FORMS["pcm16"]:
        return (x.float() - HALF) / HALF
    return scaled_to_waveform(spec.scale(x), spec)


def from_waveform(waveform: Tensor, spec: DataSpec) -> Tensor:
    """A waveform to the nearest data; values outside [-1, 1] are clipped."""
    if spec.levels == FORMS["pcm16"]:
        return (waveform * HALF + HALF).round().clamp(0, 2 * HALF - 1).long()
    waveform = waveform.clamp(-1, 1)
    return spec.unscale(compress(waveform) if is_companded(spec) else waveform)


def scaled_to_waveform(scaled: Tensor, spec: DataSpec) -> Tensor:
    """Values on the scale of ``DataSpec.scale``, such as a likelihood's mean, to the waveform.

    For 16 bits it is half a level off.
    """
    return expand(scaled) if is_companded(spec) else scaled


def is_companded(spec: DataSpec) -> bool:
    return spec.levels == FORMS["mulaw"]


def sample_rate_of(spec: DataSpec) -> int:
    """Samples per second. ValueError if the spec is not that of sound."""
    if spec.channels != 1 or spec.rank != 1 or not spec.rates or not spec.rates[0]:
        raise ValueError(f"data {spec.shape} is not sound: one channel and one axis with a sample rate are needed")
    return int(spec.rates[0])
