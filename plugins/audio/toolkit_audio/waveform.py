"""The data's own form, and the waveform that it stands for.

Sound comes in three forms, told apart by the levels of its spec: 256 are mu-law, 65536 are 16 bits, and none are
floats. A waveform is float in [-1, 1]. On data of mu-law levels ``DataSpec.scale`` is the companded scale, on which
neighbouring levels are as far apart as the ear hears them; expanding it gives the waveform.
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
"""The level of silence in 16 bits: as files have it, so that they are kept to the bit."""


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
    return heard(spec.scale(x), spec)


def from_waveform(waveform: Tensor, spec: DataSpec) -> Tensor:
    """A waveform to the nearest data; what lies outside of [-1, 1] is clipped."""
    if spec.levels == FORMS["pcm16"]:
        return (waveform * HALF + HALF).round().clamp(0, 2 * HALF - 1).long()
    waveform = waveform.clamp(-1, 1)
    return spec.unscale(compress(waveform) if is_companded(spec) else waveform)


def heard(scaled: Tensor, spec: DataSpec) -> Tensor:
    """What lies on the scale of ``DataSpec.scale``, such as a likelihood's mean, as a waveform.

    Of 16 bits it is half a level off.
    """
    return expand(scaled) if is_companded(spec) else scaled


def is_companded(spec: DataSpec) -> bool:
    return spec.levels == FORMS["mulaw"]


def sample_rate_of(spec: DataSpec) -> int:
    """Samples per second. ValueError where the spec is not of sound."""
    if spec.channels != 1 or spec.rank != 1 or not spec.rates or not spec.rates[0]:
        raise ValueError(f"data {spec.shape} is no sound: one channel and one axis with a sample rate are needed")
    return int(spec.rates[0])
