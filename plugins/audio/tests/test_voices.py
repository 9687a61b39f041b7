"""The pitch of the synthetic voices, as it is heard."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from toolkit_audio.vowels import SPEAKERS, VowelsDataset

RATE = 8000
LOWEST, HIGHEST = 70, 330
"""Hz between which a voice's pitch lies."""
FRAME = 0.05
"""Seconds that a pitch is estimated from."""


def pitch(sound: Tensor) -> float:
    """The median over loud frames of the pitch in Hz: the shortest period at which a frame is almost as like itself as
    at any."""
    frames = sound.double().unfold(0, round(FRAME * RATE), round(FRAME * RATE / 2))
    frames = frames[frames.square().mean(1) > 0.1 * frames.square().mean(1).max()]
    frames = frames - frames.mean(1, keepdim=True)
    spectra = torch.fft.rfft(frames, 2 * frames.shape[1])
    alike = torch.fft.irfft(spectra.abs().square())[:, : RATE // LOWEST]
    overlap = frames.shape[1] - torch.arange(alike.shape[1])
    alike = alike / overlap / (alike[:, :1] / frames.shape[1])
    shortest = RATE // HIGHEST
    found = []
    for row in alike[:, shortest:]:
        if not row.max() > 0:
            continue
        good = (row > 0.9 * row.max()).nonzero()[0].item()
        peak = good + int(row[good : good + 6].argmax())
        found.append(RATE / (shortest + peak))
    return float(np.median(found))


@pytest.mark.parametrize("name", SPEAKERS)
def test_the_pitch_estimate_finds_every_voice(name: str) -> None:
    dataset = VowelsDataset(form="float", seconds=2.0)
    speaker = list(SPEAKERS).index(name)
    indices = [i for i in range(40) if int(dataset.example("train", i, None)["speaker"]) == speaker][:3]
    for index in indices:
        assert pitch(dataset.example("train", index, None)["x"][0]) == pytest.approx(SPEAKERS[name].pitch, rel=0.05)
